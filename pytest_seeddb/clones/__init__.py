"""The databases that tests get: made, leased, settled, put back."""
