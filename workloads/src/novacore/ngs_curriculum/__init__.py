"""ngs-curriculum: 24 levels, their lessons and challenges, and the only place where experience points are made."""
