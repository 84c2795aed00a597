"""Who works in the clinics, and logs in."""
