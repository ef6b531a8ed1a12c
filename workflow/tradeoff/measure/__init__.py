"""Speed, memory, telemetry and proof of what ran: raw samples."""
