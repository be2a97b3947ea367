"""What ties shieldguard to the outside: wire formats, clients, the command."""
