"""LSST alert packets: schema, cutouts, and the codec from catalog rows to framed Avro bytes and back."""
