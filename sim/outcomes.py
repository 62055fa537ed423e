"""What became of a request: the codes and names of the four outcomes."""

#: Answered in time; answered too late; refused by a node on purpose; never answered.
OUTCOMES = ("on_time", "late", "dropped", "lost")
ON_TIME, LATE, DROPPED, LOST = range(4)
