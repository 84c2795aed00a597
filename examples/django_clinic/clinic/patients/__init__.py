"""Who comes to the clinics."""
