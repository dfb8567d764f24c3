"""Speed of Townhall beside llama.cpp, measured in one run: `townhall bench`."""
