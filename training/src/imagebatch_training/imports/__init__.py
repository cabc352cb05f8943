"""A model's way in: from what people have to a served archive that is proved against its own library."""
