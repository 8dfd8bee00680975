"""A file with what tools can look up: passages of documents and captioned pictures. SQLite, one file, no server."""
