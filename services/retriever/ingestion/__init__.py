"""The ingest worker: takes files from the queue and brings them into the library."""
