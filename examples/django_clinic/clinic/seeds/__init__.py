"""What the database holds: `essential` everywhere, `demo` wherever it is not production.

None of these seeders asks for a session or a connection, so each runs in a transaction of Django's: the
models, the factories, and what they call, all write through Django's own connection.
"""
