"""Image classification data: by name, from a folder, or from your own function."""

from nas.data.dataset import ImageData, Split
from nas.data.load import DATA_NAMES, load_data
from nas.data.splits import from_arrays

__all__ = ["DATA_NAMES", "ImageData", "Split", "from_arrays", "load_data"]
