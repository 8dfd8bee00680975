"""Several engine processes behind one Backend: `backend.ReplicaBackend`."""
