"""Runtimes by name: a runtime turns model bytes into something that can be run and timed.

Adding one takes a file here, a line in `RUNTIMES` and a subclass of the contract suite in the tests. A runtime of your
own needs no edit: name it by its dotted path, `my_package.runtimes:MyRuntime`.
"""

from importlib import import_module

from hardware_profiles.errors import ProfileError, unknown_name
from hardware_profiles.runtimes.runtime import Runtime, Session

__all__ = ["RUNTIMES", "Runtime", "Session", "get_runtime"]

RUNTIMES = {
    "onnxruntime": "hardware_profiles.runtimes.onnx_runtime:OnnxRuntime",
    "openvino": "hardware_profiles.runtimes.openvino:OpenVinoRuntime",
    "browser": "hardware_profiles.runtimes.browser:BrowserRuntime",
    "litert": "hardware_profiles.runtimes.litert:LiteRtRuntime",
}
"""Dotted paths, so that a runtime's library is imported only when it is used."""


def get_runtime(name: str, *, num_threads: int = 1, device: str = "") -> Runtime:
    """The runtime registered as `name`, or found at the dotted path `name` ("module:Class").

    Raises:
        ProfileError: no such runtime, its library or `device` is missing, or the class isn't a `Runtime`.
    """
    if ":" not in name and name not in RUNTIMES:
        raise ProfileError(unknown_name("runtime", name, RUNTIMES))
    module_name, _, class_name = RUNTIMES.get(name, name).partition(":")
    try:
        runtime_class = getattr(import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        way_out = f"pip install 'hybridnas[{name}]'" if name in RUNTIMES else "install its package or mend the path"
        raise ProfileError(f"runtime {name!r} can't be imported ({error}); {way_out}") from error
    if not (isinstance(runtime_class, type) and issubclass(runtime_class, Runtime)):
        raise ProfileError(f"runtime {name!r} isn't a Runtime; derive it from hardware_profiles.runtimes.Runtime")
    return runtime_class(num_threads=num_threads, device=device)
