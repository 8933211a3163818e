"""Device descriptions, from /proc/cpuinfo of several processors."""

from pathlib import Path

from hardware_profiles.device import DeviceInfo, describe_device, parse_cpuinfo

EPYC = """processor\t: 0
vendor_id\t: AuthenticAMD
model name\t: AMD EPYC 9354P
flags\t\t: fpu sse4_2 avx avx2 avx512f avx512_vnni fsrm

processor\t: 1
model name\t: AMD EPYC 9354P
flags\t\t: fpu sse4_2 avx avx2 avx512f avx512_vnni fsrm
"""
OLD_INTEL = "model name\t: Intel(R) Atom(TM)\nflags\t\t: fpu sse2 xavx2\n"
RASPBERRY = "processor\t: 0\nFeatures\t: fp asimd evtstrm crc32 asimddp\n\nModel\t\t: Raspberry Pi 5 Model B\n"


def test_flags_and_name_are_read_from_cpuinfo() -> None:
    assert parse_cpuinfo(EPYC) == ("AMD EPYC 9354P", ("avx2", "avx512f", "avx512_vnni"))
    assert parse_cpuinfo(OLD_INTEL) == ("Intel(R) Atom(TM)", ())
    assert parse_cpuinfo(RASPBERRY) == ("Raspberry Pi 5 Model B", ("neon", "dotprod"))
    assert parse_cpuinfo("") == ("", ())


def test_this_machine_is_described_completely() -> None:
    device = describe_device()
    assert device.processor
    assert device.platform
    assert device.num_cores >= 1
    assert device.memory_gb > 0
    assert device == describe_device()


def test_without_cpuinfo_the_processor_still_has_a_name(tmp_path: Path) -> None:
    device = describe_device(cpuinfo=tmp_path / "missing")
    assert isinstance(device, DeviceInfo)
    assert device.processor
    assert device.flags == ()
