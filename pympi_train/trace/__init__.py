"""What each rank does when: phases, spans, and files that Perfetto opens."""
