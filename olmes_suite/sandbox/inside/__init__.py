"""The code inside a jail: it imports the standard library only, since a jail hides olmes_suite."""
