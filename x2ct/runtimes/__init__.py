"""The runtimes of this machine, their memory, and the cache of compiled engines."""
