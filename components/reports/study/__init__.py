"""What a study shows: numbers from finished trials, pictures, texts. Pure: plain values in, plain values out."""
