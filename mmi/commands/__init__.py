"""One thin file per command; with ``mmi/cli.py`` the only place where everything meets."""
