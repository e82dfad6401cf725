"""What every service shares: bus, log, worker life cycle, settings, telemetry."""
