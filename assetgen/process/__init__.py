"""Models in a process of their own: what can crash, hang or grow there takes nothing else with it; POSIX only."""
