"""What outlives a request: stored responses, files, batches. One SQLite file and a folder of blobs."""
