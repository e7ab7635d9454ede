"""No observer of a process sees the secret key or a UserSig, however a call ends."""
