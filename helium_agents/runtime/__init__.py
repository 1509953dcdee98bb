"""Makes it happen: sessions, planning, single flight, admission, map."""
