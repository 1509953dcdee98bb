"""Makes it happen: sessions, planning, single flight, dispatcher, map."""
