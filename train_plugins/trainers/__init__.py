"""TRL trainers with our losses, adapters, dropout, offloading and callbacks."""
