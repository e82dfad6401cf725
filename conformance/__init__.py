"""The conformance kit: drives any worker over NATS through what proto/README.md promises."""
