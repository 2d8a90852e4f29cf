"""What becomes of a handover: pure tables and state machines; time is an argument."""
