"""The model in people's hands: sessions, the HTTP server and the web page."""
