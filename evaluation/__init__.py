"""Tools that ask a running Baton like a user and judge what comes back."""
