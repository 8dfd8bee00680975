"""/v1/batches: files of requests, answered in the background, a line at a time, whatever happens to the server."""
