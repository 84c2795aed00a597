"""What the database holds: `essential` everywhere, `demo` wherever it is not production."""
