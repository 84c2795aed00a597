"""The user's own code: finding it, calling it, and sending its connections to our database."""
