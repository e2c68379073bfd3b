"""The leaderboard: one static HTML file of recorded runs. It needs no server and makes no network requests."""
