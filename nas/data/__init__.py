"""Image classification data: by name, from a folder, or from your own function."""

from nas.data.dataset import ImageData, Images, Split, TrainImages
from nas.data.load import DATA_NAMES, load_data
from nas.data.splits import from_arrays
from nas.data.stream import StreamedSplit

__all__ = ["DATA_NAMES", "ImageData", "Images", "Split", "StreamedSplit", "TrainImages", "from_arrays", "load_data"]
