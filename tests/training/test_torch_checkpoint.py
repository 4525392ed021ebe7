"""Published PyTorch checkpoints as start weights: read without PyTorch, never executed, converted exactly."""

from __future__ import annotations

import base64
import io
import json
import os
import pickle
import re
import struct
import time
import tracemalloc
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from schemas.errors import ConfigurationError
from schemas.findings import LABELS, Label
from tests.training.torchvision_layout import Call, Checkpoint, Global, Raw, Storage, logits, random_state
from training import network
from training.torch_checkpoint import CHEXNET, XRV, Start, densenet121_from_torch, read_checkpoint, start_from

COLUMNS = [(label,) for label in LABELS]
CONTAINERS = ("zip", "legacy")
Arrays = dict[str, np.ndarray]


def write(tmp_path: Path, data: bytes, name: str = "model.pth.tar") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


def same(got: Arrays, want: Arrays, rtol: float = 0) -> None:
    assert list(got) == list(want)
    for name, array in want.items():
        assert got[name].dtype == np.float32
        assert got[name].flags.c_contiguous
        assert got[name].flags.writeable
        np.testing.assert_allclose(got[name], array.astype(np.float32), rtol=rtol, atol=0, err_msg=name)


@pytest.fixture(scope="module")
def state() -> Arrays:
    return random_state((2, 1))


# ---------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize(
    ("element", "rtol"), [("float32", 0), ("float64", 0), ("float16", 2**-11), ("bfloat16", 2**-7)]
)
def test_both_containers_and_every_element(
    container: str, element: str, rtol: float, state: Arrays, tmp_path: Path
) -> None:
    file = Checkpoint()
    path = write(tmp_path, getattr(file, container)(file.state_dict(state, element)))
    got = read_checkpoint(path)
    if element == "float16":  # small numbers lose more than their last bit
        want = {n: a.astype(np.float16) if a.ndim else a for n, a in state.items()}
        same(got, want)
    else:
        same(got, state, rtol)


def test_python_2_wrote_strings_of_bytes(state: Arrays, tmp_path: Path) -> None:
    file = Checkpoint()
    same(read_checkpoint(write(tmp_path, file.legacy(file.state_dict(state), python2=True))), state)


def test_a_big_endian_machine_wrote_the_archive(tmp_path: Path) -> None:
    file = Checkpoint()
    node = {"a.weight": file.tensor(np.array([1.0, -2.5]))}
    file.numbers["0"] = np.array([1.0, -2.5], ">f4").tobytes()
    same(read_checkpoint(write(tmp_path, file.zip(node, order=b"big"))), {"a.weight": np.array([1.0, -2.5])})


@pytest.mark.parametrize("container", CONTAINERS)
def test_strides_offsets_and_shared_storages(container: str, tmp_path: Path) -> None:
    file = Checkpoint()
    base = np.arange(24, dtype=np.float32)
    storage = file.storage(base)
    node = {
        "transposed": file.tensor(base, storage=storage, shape=(3, 2), stride=(1, 4), offset=5),
        "row": file.tensor(base, storage=storage, shape=(4,), offset=20),
        "number": file.tensor(base, storage=storage, shape=(), offset=23),
        "none": file.tensor(base, storage=storage, shape=(0, 3), offset=24),
        "counts": file.tensor(np.array([3, -4]), "int64"),
        "flags": file.tensor(np.array([True, False]), "bool"),
        "rows.bf16": file.tensor(np.arange(6.0).reshape(2, 3), "bfloat16", shape=(3, 2), stride=(1, 3)),
    }
    want = {
        "transposed": np.array([[5, 9], [6, 10], [7, 11]]),
        "row": np.arange(20, 24),
        "number": np.array(23),
        "none": np.zeros((0, 3)),
        "counts": np.array([3, -4]),
        "flags": np.array([1, 0]),
        "rows.bf16": np.arange(6.0).reshape(2, 3).T,
    }
    same(read_checkpoint(write(tmp_path, getattr(file, container)(node))), want)


def test_an_old_view_of_a_storage(tmp_path: Path) -> None:
    file = Checkpoint()
    storage = file.storage(np.arange(8.0))
    view = Storage(storage.kind, storage.key, storage.numel, view=("a view", 3, 4))
    node = {"a": file.tensor(np.zeros(2), storage=view, offset=1)}
    same(read_checkpoint(write(tmp_path, file.legacy(node))), {"a": np.array([4.0, 5.0])})


# Written by PyTorch 2.13, not by this file's peer: {"model": module, "epoch": 3} in zip, a state dict in legacy form.
GENUINE_MODULE = (
    "c-qBROLG)e6z)u55;`H_jXXtsO%x{cNJ0Xb;DCcV7?MG-MX~Kn-^^{((><sAb^>S=#6a+gZ$ZQtx^d&ivfS|(v`UMGRW6XSTv@KP"
    "%8mEYlXQ1@85Z``B;EI(^PO|=`Mz^|1`73aB&o4cnsF_V7D<{@!p10S*EOOgt0QJU*COo?T}NW$ASIN!)S+VQ$b`BQv8h+mvXXSb"
    "Gm)Dt*%r|Z3pw&01Rk=8p_wwo+Kxi~ILt{XEI4tfg<+Lp?xfO0pVg}7Xca_|<3fBK8n}@<<P8tAk;ZYDr>tTlmTjq3I%K$n0@n;w"
    "7ZH$4Dt$IgVpysw(-9e(4nXq+%r8QVvY6v(rI9hs(bcMhRBYQLF0__PwrQdgF>K3~cRM<AkiNqxQSSw9MOdh`h8%^{BFyF%E6doN"
    ";i|))X@+fJNx#y<W`}Jj;JB1KE>l*{m{P|Kf>j1kc40X;yG2<&(@ZnRv_r01(rD5;tl)+#l|@0r>BX($)2o%WSDX%oT*FP*DhrvZ"
    "OEiL1o$i7UbSs}-r!0-kPKUaUTdWr=Gi^=3vf1t2><&@P8D_Ry3wS5DyGzi(Cl=g24hg|MO0m%tv|W*Vqw;q8C!@=752f6_<FFxt"
    "=T2hEs*MRHPMyb)QN{$4zPIWT!*pfUL5w~6G!tcLzlsUvo@+bmXhwz<&8UHby3|rDBS;GuIZqcy_J~0lGD;n_NkLYrXW3Uh=qSVp"
    "bPg7zL?KqFV;=%t3312nH=X1=&`qGH2%9JQ!<G}UwFvhqRKe1ap}El8?_sKqJ}hHO^=%Vye-U!Hl^buzf~7m~l71|B_W%~e%45Ns"
    "omdd$K`g5O5EgZQ7>jBauqf9qEXwf+rWNStdZijGVa>9T>B8<pozhIlY>!M24isYCa0EH@S#^!W2nN~Gjzf`G!6lBNBiJLx9_5=@"
    ")pVUTg}nu-ARUK&y!^UhYD}H*m@rioSu_yKrG%j(c>E-n8Vz5i8PqWL3yddtu(D%&RTrN0Gxcp4u@D^Kj5>@Q+l8l;b&PNh8l_zY"
    "=`}DqP(_rcwDMy{34xkm;Os--X>W)FShiD1fi{zpLmDYzHY?}YT|d2J<Q$^pERBO+BPUAWByPu)PdJSQU(zs)IZw)zCxzGq;6mL5"
    "7=jtk5Ev<fDVR|?0ag)g+#5m2Kvf`skKix_S0E4qUJ*tG!q^EoScF5IPlpqHmmJTs_%0#Mf@edxS$Iz1j{CUJGu#&h?hyh<i|`^Z"
    "e+^?)bKqDAq61zM5EDMcaRzZhKui)iS%jB)*S5Th%J&etDy@2HgqHjj0p)9Lmu;1&r1mOD?}XPVI@QtZ6uqrYpuR!iR1x0vgk0X5"
    "fVYeAjxU#YeYw0hEtmIwxqRTu<+LxCGrn9t^yPBam&-@KT+aD&`IyP&6TX#f4a1Z{o<rN%r&JoO4Is+M&vy3y`u8`Jm++sQ>lM2~"
    "k2S9XpYQDZ?lim3aQ<q;!}LIf^OJl>_%5imtz`|=g)b((A<w5Gs@f$CUl!`U<UpaJ@%-7#o4=;=V&8$Qp8w0Grm6EkNzaOkMpUK("
    "s=R!zq4pY(W`N)R@$)gZ$?SV|z?IUbX+Xa{(&Ni0TWpQ_TsHD*aYI*E2TP!D41SN%5V30}uu$roN?_;^K{h+w^SLdviCeo&gAfz3"
    "9479&w1Sl;e$5<Oq~6e5ReLI*+k6uVNYaHq`mT0?WiZma<~R%4c%2NkhBHX#bKTPH;~(i`Ul#w=VEo5f#LwJZd~vb(#xLv9EaGSX"
    "=lC5r8K3R{HWvSKTXWMa;&<Lm{D#2#t3Ul_Uq61Uv}G#(R6p4?+XS*Qi~Rk$^4{y~f31|6Za{qLE^_E^5#um_pHK}wpG*G7MADhA"
    "?#`}F*`BVRt`7Ribfwd&Y<EvK)zOpc%%-|CsdTnG+sU&0>aQd51kEGCv#evuPURWw$qQy=9{n8_^$s@R<zd%G>1tg(3KDFhD?=EA"
    "L68}pJBkx*gbPDBKLl{58gSG-*u`2x?)&CRk=_~g4R)Zg@5QKZI_eu#Z`hZ;Uxqu@jr(4V`eviPLDfd$Hbs0pqP{`JMdC(%JEOiq"
    "&9sK&HcL^3MxBFHUK_4)!1>A|8z{u%8)}lQ-#F#j9QprGO#DAMzt&>nyxX|GKE&I`+_>;*=Jvw&UoL1`h5"
)

GENUINE_STATE = (
    "c-noF*>2NN5Qc5XX{c#STGq0b-C+rdv$bsH0`<nM=H}cW%W;lkgJWmxaS%w6a#IO-1|ERN=<DzZNL(;pno7mxShmm1IrIJFGvk@`"
    "UGe_>*!jKj;pdz6`b>KHt3=N!2r8=zf-nvP4D7%&Cp?VYzz2~wuw`2DTtttX+#k4>57JkrkP|<Txf!`%cm$;>$SNz7Gjf6up{z@+"
    "M3(C#Ea)<m6Gq?<p`y!iOqw>yc-%%(iImsjfQNkW+_g~wp=N-nvL%YJ1Ao$}f8y@YL6B?=LffgEF}hx)m?7`St~W4|`%w^@6HS4V"
    "s<KLw1MRei9ONuS+3^Ak-(^k(%4~)9Y_(gxuGY}Bc5|zv!9tp@J&q|u=@r7Ux4NL}k}f6}!lIhZlDYEDNpd`nuw=k;ny4Ryqj{n$"
    "4&~v<&LJJGqir_egp={B#Mh-=Sk=W{Sj&hf5l$I!Iz8Kr*mtc6&J^-GtwyKUg|j*DT+Ulhc;_?T1%!(RTw-f;UKsnn>krKlrz&1P"
    "irdo~a3$w%<lL(X_gcoij&Q?(n{4$T?!*e=))ClFuc^W99INKoT7tckVecZ`GvGd3pJV-aWcDqz9Uhq&TJ}difO>|{EBk_aYF^j}"
    "hZMW*W)~WyD3W566l=9iNkeEE(2l3jVT%+(=YiJ1LJPX-dQWBK6<~7;TWLe>{|^s!F-p5U?M!$yg~!g^m*xylrtp+}QWQsh>ht%>"
    "zg5r&Vo?)HMHMa;l}9c*+;Y+PFYvk~?2p-Yav#`xWLNhN>}>qUPU4@5xlzgAe*sR74wn"
)


@pytest.mark.parametrize("written", [GENUINE_MODULE, GENUINE_STATE])
def test_what_pytorch_itself_wrote(written: str, tmp_path: Path) -> None:
    path = write(tmp_path, zlib.decompress(base64.b85decode(written)))
    want = {
        "conv0.weight": np.array([1.5, -2.25]).reshape(2, 1, 1, 1),
        "norm0.weight": np.ones(2),
        "norm0.bias": np.zeros(2),
        "norm0.running_mean": np.zeros(2),
        "norm0.running_var": np.array([0.5, 4.0]),
        "norm0.num_batches_tracked": np.array(7),
    }
    same(read_checkpoint(path), want)


def module(name: str, *, new: bool = True, **attributes: Any) -> Call:
    parts = {"training": False, "_parameters": {}, "_buffers": {}, "_modules": {}, "_backward_hooks": OrderedDict()}
    args = () if new else (Global(name), Global("__builtin__.object"), None)
    return Call(name if new else "copy_reg._reconstructor", args, {**parts, **attributes}, new)


def test_a_whole_module_gives_its_state_dict(tmp_path: Path) -> None:
    file = Checkpoint()
    weight, bias, mean, passing = (file.tensor(np.array([float(i)])) for i in range(4))
    parameter = Call("torch._utils._rebuild_parameter", (weight, True, OrderedDict()))
    norm = module(
        "torch.nn.modules.batchnorm.BatchNorm2d",
        _parameters=OrderedDict(weight=parameter, bias=None),
        _buffers=OrderedDict(running_mean=mean, passing=passing),
        _non_persistent_buffers_set=Call("__builtin__.set", (["passing"],)),
    )
    linear = module("torch.nn.modules.linear.Linear", new=False, _parameters={"bias": bias})
    net = module("torchvision.models.densenet.DenseNet", _modules=OrderedDict(norm0=norm, none=None, classifier=linear))
    parallel = module("torch.nn.parallel.data_parallel.DataParallel", _modules={"module": net}, device_ids=[0])
    node = {
        "model": parallel,
        "best_loss": Call("numpy.core.multiarray.scalar", (Call("numpy.dtype", ("f8", 0, 1)), "x")),
        "rng_state": file.tensor(np.arange(3), "uint8"),
        "optimizer": {"state": {1: {"exp_avg": file.tensor(np.zeros(1))}}},
    }
    want = {"module.norm0.weight": [0.0], "module.norm0.running_mean": [2.0], "module.classifier.bias": [1.0]}
    for container in CONTAINERS:
        got = read_checkpoint(write(tmp_path, getattr(file, container)(node)))
        same(got, {name: np.array(value) for name, value in want.items()})


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda t: Call("torch._utils._rebuild_parameter", (t, True, OrderedDict())),
        lambda t: Call("torch._utils._rebuild_parameter_with_state", (t, True, OrderedDict(), {"tag": 1})),
        lambda t: Call("torch.nn.parameter.Parameter", (t,), (True, False, OrderedDict())),  # 0.2 and 0.3
        lambda t: Call("torch.nn.parameter.Parameter", (), (t, None, None, True, False), new=True),  # 0.1
        lambda t: Call("torch.autograd.variable.Variable", (t, False), (False, False, None)),
        lambda t: Call("torch._utils._rebuild_tensor", t.args[:4]),
        lambda t: Call(
            "torch._utils._rebuild_tensor_v3",
            (Storage("torch.storage.UntypedStorage", "0", 8), *t.args[1:], Global("torch.float32")),
        ),
        lambda t: Call(
            "torch._tensor._rebuild_from_type_v2",
            (Global("torch._utils._rebuild_tensor_v2"), Global("torch.nn.parameter.Parameter"), t.args, {}),
        ),
    ],
)
def test_every_generation_of_parameters(wrapped: Any, tmp_path: Path) -> None:
    file = Checkpoint()
    path = write(tmp_path, file.zip({"a.weight": wrapped(file.tensor(np.array([1.0, 2.0])))}))
    same(read_checkpoint(path), {"a.weight": np.array([1.0, 2.0])})


def test_safetensors(tmp_path: Path) -> None:
    header = {
        "__metadata__": {"format": "pt"},
        "a.weight": {"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8]},
        "a.half": {"dtype": "BF16", "shape": [], "data_offsets": [8, 10]},
    }
    body = np.array([1.5, -2], "<f4").tobytes() + (np.array([3.0], "<f4").view("<u4") >> 16).astype("<u2").tobytes()
    want = {"a.weight": np.array([[1.5], [-2]]), "a.half": np.array(3.0)}
    text = json.dumps(header).encode()
    same(read_checkpoint(write(tmp_path, struct.pack("<Q", len(text)) + text + body)), want)
    header["a.weight"]["shape"] = [2, 1 << 40]  # type: ignore[index]
    text = json.dumps(header).encode()
    refused(write(tmp_path, struct.pack("<Q", len(text)) + text + body), "does not fit")


# ------------------------------------------------------------------------------------------------------ hostile files


def refused(path: Path, what: str | None = None) -> None:
    """One clear error of one line, which names the file and a mend, soon and in little memory."""
    tracemalloc.start()
    began = time.thread_time()
    try:
        with pytest.raises(ConfigurationError, match=what) as caught:
            read_checkpoint(path)
        took, peak = time.thread_time() - began, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert re.search(r"fetch|name |save", message)
    assert message.isprintable()
    assert len(message) < 700
    assert took < 30  # seconds of this thread; most take a thousandth
    assert peak < 64 << 20


class Trap:
    """A real malicious pickle: loading it makes a folder."""

    def __init__(self, call: Any, *args: Any) -> None:
        self.call = (call, args)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_nothing_in_a_file_is_ever_called(protocol: int, state: Arrays, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    traps = [
        Trap(os.system, f"mkdir {marker}"),
        Trap(os.mkdir, str(marker)),
        Trap(eval, f"__import__('os').mkdir({str(marker)!r})"),
    ]
    for trap in traps:
        pickled = pickle.dumps(trap, protocol)
        refused(write(tmp_path, pickled))
        body = pickled[2 if protocol >= 2 else 0 : -1]
        file = Checkpoint()
        node = {"state_dict": file.state_dict(state), "epoch": Raw(body if protocol == 2 else b"N")}
        for container in CONTAINERS:
            same(read_checkpoint(write(tmp_path, getattr(file, container)(node))), state)  # inert beside the tensors
            refused(write(tmp_path, getattr(file, container)(Raw(body))))
        assert not marker.exists()
    pickle.loads(pickle.dumps(traps[1]))
    assert marker.exists()  # so the trap does work where it is let


def zip_with(opcodes: bytes, *numbers: bytes) -> bytes:
    file = Checkpoint(numbers={str(i): part for i, part in enumerate(numbers)})
    return file.zip(Raw(opcodes))


def tensor_of(numel: int = 4, key: str = "0", **view: Any) -> bytes:
    """One tensor over a storage of four numbers, described as told."""
    file = Checkpoint()
    file.storage(np.zeros(4))
    return file.zip({"a.weight": file.tensor(np.zeros(4), storage=Storage("torch.FloatStorage", key, numel), **view)})


def in_itself() -> bytes:
    """A module whose child is itself: the memo gives it back."""
    return (
        b"ctorch.nn\nModule\n)\x81q\x00}(X\x08\x00\x00\x00_modules}X\x01\x00\x00\x00ah\x00sX\x0b\x00\x00\x00_parameters"
        b"}ub"
    )


def doubled(opening: bytes, again: bytes) -> bytes:
    """Sixty-four rounds of "twice what there was"."""
    return opening + b"".join(b"q" + bytes([i]) + again.replace(b"*", b"h" + bytes([i])) for i in range(64))


CHILDREN = (
    b"ctorch.nn\nModule\n)\x81}(X\x08\x00\x00\x00_modules}(X\x01\x00\x00\x00a*X\x01\x00\x00\x00b*uX\x01\x00\x00\x00c)ub"
)
HOSTILE: dict[str, tuple[bytes, str]] = {
    "larger than its storage": (tensor_of(shape=(5,)), "reaches to number 4 of a storage of 4"),
    "offset beyond": (tensor_of(shape=(2,), offset=1 << 40), "reaches to number"),
    "negative offset": (tensor_of(shape=(2,), offset=-1), "shape that no tensor"),
    "negative stride": (tensor_of(shape=(2,), stride=(-1,)), "shape that no tensor"),
    "negative size": (tensor_of(shape=(-2, -2)), "shape that no tensor"),
    "repeated without end": (tensor_of(shape=(1 << 20, 1 << 20), stride=(0, 0)), "shape that no tensor"),
    "astronomical": (tensor_of(shape=(1 << 62,) * 16, stride=(0,) * 16), "shape that no tensor"),
    "too many axes": (tensor_of(shape=(1,) * 40), "few whole numbers"),
    "a shape of floats": (tensor_of(shape=(1.0,), stride=(1,)), "few whole numbers"),
    "huge numbers": (tensor_of(shape=(1 << 500,), stride=(1,)), "few whole numbers"),
    "an empty tensor of any size": (tensor_of(shape=(0, 1 << 62, 1 << 62), stride=(1, 1, 1)), "broken"),
    "a storage of another size": (tensor_of(numel=1 << 50, shape=(2,)), "should have 1125899906842624 numbers"),
    "a negative storage": (tensor_of(numel=-1, shape=(2,)), "has -1 numbers"),
    "a storage elsewhere": (tensor_of(key="../../secret", shape=(2,)), "is missing in the archive"),
    "a memo of four thousand million": (zip_with(b"Nr\xff\xff\xff\xff"), "no state dict"),
    "a string of exabytes": (zip_with(b"\x8d" + b"\xff" * 7 + b"\x7f"), "broken"),
    "bytes of exabytes": (zip_with(b"\x96" + b"\xff" * 7 + b"\x7f"), "broken"),
    "a frame of exabytes": (zip_with(b"\x95" + b"\xff" * 7 + b"\x7fN"), "no state dict"),
    "an extension": (zip_with(b"\x82\x01"), "the operation EXT1"),
    "a textual persistent id": (zip_with(b"P0\n"), "the operation PERSID"),
    "a foreign persistent id": (zip_with(b"X\x01\x00\x00\x00a\x85Q"), "persistent id"),
    "an empty stack": (zip_with(b"R"), "broken"),
    "a module in itself": (zip_with(in_itself()), "modules within modules"),
    "modules that double": (zip_with(doubled(b"N", CHILDREN)), "modules within modules"),
    "a key that doubles": (zip_with(b"}" + doubled(b")", b"**\x86") + b"Ns"), "no state dict"),
    "a key that nests": (zip_with(b"}" + b")" + b"\x85" * 100_000 + b"Ns"), "no state dict"),
    "lists within lists": (zip_with(b"](" * 20_000 + b"e" * 20_000), "no state dict"),
    "a dict built again and again": (
        zip_with(b"](" + b"))\x86" * 2000 + b"eq\x00" + b"ccollections\nOrderedDict\nh\x00\x85R0" * 4000),
        "more than 1000000 operations",
    ),
    "a decimal of a million digits": (zip_with(b"I" + b"9" * 1_000_000 + b"\n"), "broken"),
    "no tensors": (Checkpoint().zip({"state_dict": {"epoch": 3, "best\n\x1b[2J": 1}}), "no state dict"),
    "an optimiser alone": (Checkpoint().zip({"optimizer": {"a": 1}, "scheduler": {"b": 1}}), "no state dict"),
    "packed zeros": (
        Checkpoint(numbers={"0": bytes(200 << 20)}).zip({}, zipfile.ZIP_DEFLATED),
        "larger than itself",
    ),
    "the keys of storages as a tree": (
        Checkpoint().legacy({})[:-6] + b"\x80\x02](" + doubled(b"]", b"](**e") + b"e.",
        "no text",
    ),
    "a pickle of something else": (pickle.dumps({"a": 1}, 2), "not a checkpoint of torch.save"),
    "nothing": (b"", "an empty file"),
    "a web page": (b"\n<!DOCTYPE html><html>", "a web page"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
    "a tar archive": (bytes(257) + b"ustar" + bytes(250), "a tar archive"),
    "noise": (bytes(range(1, 200)), "something else"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_one_clear_error(case: str, tmp_path: Path) -> None:
    data, what = HOSTILE[case]
    refused(write(tmp_path, data), what)


def test_archives_of_something_else(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("readme.txt", "hello")
    refused(write(tmp_path, out.getvalue()), "not one of torch.save")
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr("net/data.pkl", b"\x80\x02N.")
        archive.writestr("net/code/__torch__.py", "")
    refused(write(tmp_path, out.getvalue()), "TorchScript")
    path = tmp_path / "huge.pt"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse: it takes no room
    refused(path, "more than any DenseNet121 has")
    refused(tmp_path, "cannot be read")
    refused(tmp_path / "none.pt", "cannot be read")


@pytest.mark.parametrize("container", CONTAINERS)
def test_cut_anywhere_or_flipped_anywhere(container: str, tmp_path: Path) -> None:
    file = Checkpoint()
    whole = getattr(file, container)(file.state_dict(random_state((1,), growth=1, stem=1)))
    cuts = [*range(0, 600, 7), *range(600, len(whole), 97)]
    for cut in cuts:
        with pytest.raises(ConfigurationError, match=r"model\.pth\.tar: "):
            read_checkpoint(write(tmp_path, whole[:cut]))
    rng = np.random.default_rng(0)
    outcomes = set()
    for _ in range(300):
        broken = bytearray(whole)
        for place in rng.integers(0, len(whole), rng.integers(1, 4)):
            broken[place] = rng.integers(256)
        try:
            read_checkpoint(write(tmp_path, bytes(broken)))
            outcomes.add("read")
        except ConfigurationError:
            outcomes.add("refused")
    assert "refused" in outcomes


# --------------------------------------------------------------------------------------------------------- converting


def twin(blocks: tuple[int, ...], growth: int, stem: int, *, channels: int = 3, outputs: int = 15) -> keras.Model:
    """keras.applications.DenseNet's graph and names, small: float (N, s, s, 3) -> logits (N, outputs)."""
    layers = keras.layers

    def norm_relu(x: Any, name: str) -> Any:
        return layers.ReLU()(layers.BatchNormalization(epsilon=1.001e-5, name=name)(x))

    film = keras.Input((64, 64, channels))
    x = layers.ZeroPadding2D(3)(film)
    x = layers.Conv2D(stem, 7, strides=2, use_bias=False, name="conv1_conv")(x)
    x = norm_relu(x, "conv1_bn")
    x = layers.MaxPooling2D(3, strides=2)(layers.ZeroPadding2D(1)(x))
    for i, count in enumerate(blocks, 2):
        for j in range(1, count + 1):
            new = norm_relu(x, f"conv{i}_block{j}_0_bn")
            new = layers.Conv2D(4 * growth, 1, use_bias=False, name=f"conv{i}_block{j}_1_conv")(new)
            new = norm_relu(new, f"conv{i}_block{j}_1_bn")
            new = layers.Conv2D(growth, 3, padding="same", use_bias=False, name=f"conv{i}_block{j}_2_conv")(new)
            x = layers.Concatenate()([x, new])
        if i < len(blocks) + 1:
            x = norm_relu(x, f"pool{i}_bn")
            x = layers.Conv2D(x.shape[-1] // 2, 1, use_bias=False, name=f"pool{i}_conv")(x)
            x = layers.AveragePooling2D(2)(x)
    x = norm_relu(x, "bn")
    maps = layers.Conv2D(outputs, 1, name="maps")(x)
    return keras.Model(film, layers.GlobalAveragePooling2D()(maps))


@pytest.fixture(scope="module")
def small() -> keras.Model:
    keras.utils.set_random_seed(3)
    return twin((2, 1), 4, 8)


@pytest.fixture(scope="module")
def own(small: keras.Model) -> Arrays:
    return network.weights_of(small)


@pytest.fixture(scope="module")
def films() -> np.ndarray:
    """(N, channels, h, w), as after ImageNet's scaling."""
    return np.random.default_rng(1).normal(0, 1, (2, 3, 64, 64)).astype(np.float32)


def run(model: keras.Model, start: Start, films: np.ndarray) -> np.ndarray:
    network.load_weights(model, start.weights)
    return np.asarray(model.predict_on_batch(films.transpose(0, 2, 3, 1)))


def close(got: np.ndarray, want: np.ndarray) -> None:
    assert np.abs(want).max() > 0.1
    assert np.abs(got - want).max() < 1e-5 * np.abs(want).max()


def in_our_order(outputs: np.ndarray, order: tuple[Label | None, ...]) -> np.ndarray:
    return outputs[:, [order.index(label) for label in LABELS[:14]]]


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_small_densenet_gives_equal_outputs(
    container: str, state: Arrays, small: keras.Model, own: Arrays, films: np.ndarray, tmp_path: Path
) -> None:
    file = Checkpoint()
    path = write(tmp_path, getattr(file, container)({"state_dict": file.state_dict(state)}))
    start = start_from(path, own, COLUMNS)
    got = run(small, start, films)
    close(got[:, :14], in_our_order(logits(state, films), CHEXNET))
    assert start.columns == tuple(range(14))
    assert start.scaling == "densenet121"
    assert start.scaling in network.SCALINGS
    assert list(start.weights) == list(own)
    for name in ("maps/kernel", "maps/bias"):  # "No Finding" is not among CheXNet's
        assert (start.weights[name][..., 14] == own[name][..., 14]).all()
    assert any("CheXNet" in note for note in start.notes)


def test_the_whole_densenet121_gives_equal_outputs() -> None:
    state = random_state((6, 12, 24, 16), growth=32, stem=64)
    model = network.build(15, 32)
    start = densenet121_from_torch(state, network.weights_of(model), COLUMNS, source="f")
    network.load_weights(model, start.weights)
    films = np.random.default_rng(2).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    scaled = (films / 255 - network.IMAGENET_MEAN) / network.IMAGENET_STD
    want = in_our_order(logits(state, scaled.transpose(0, 3, 1, 2)), CHEXNET)
    close(np.asarray(model.predict_on_batch(films)["logits"])[:, :14], want)
    assert all(np.isfinite(array).all() for array in start.weights.values())


def test_pytorchs_smaller_epsilon_counts_where_variances_are_small(
    state: Arrays, small: keras.Model, own: Arrays, films: np.ndarray
) -> None:
    quiet = {**state, "features.norm5.running_var": np.full_like(state["features.norm5.running_var"], 1e-7)}
    want = in_our_order(logits(quiet, films), CHEXNET)
    start = densenet121_from_torch(quiet, own, COLUMNS, source="f")
    close(run(small, start, films)[:, :14], want)
    unfolded = Start(
        weights={**start.weights, "bn/gamma": quiet["features.norm5.weight"]},
        columns=(),
        scaling="densenet121",
        notes=(),
    )
    assert np.abs(run(small, unfolded, films)[:, :14] - want).max() > 1e-4 * np.abs(want).max()


@pytest.mark.parametrize("prefix", ["module.", "module.densenet121.", "model.", "densenet121."])
def test_prefixes_and_the_old_spelling(prefix: str, state: Arrays, own: Arrays) -> None:
    old = {
        prefix + re.sub(r"(norm|conv)([12])\.", r"\1.\2.", name).replace("classifier.", "classifier.0."): array
        for name, array in state.items()
        if not name.endswith("num_batches_tracked")  # PyTorch 0.4.1 brought it
    }
    assert any("denselayer1.norm.1.weight" in name for name in old)
    want = densenet121_from_torch(state, own, COLUMNS, source="f")
    got = densenet121_from_torch(old, own, COLUMNS, source="f")
    assert got.columns == want.columns
    assert all((got.weights[path] == array).all() for path, array in want.weights.items())


def test_torchxrayvision_has_one_channel_and_its_own_scaling(
    small: keras.Model, own: Arrays, films: np.ndarray
) -> None:
    state = random_state((2, 1), classes=18, channels=1) | {"op_threshs": np.full(18, np.nan, np.float32)}
    grey = films[:, :1] * 300
    start = densenet121_from_torch(state, own, COLUMNS, source="f")
    assert start.scaling == "xrv"
    assert start.scaling in network.SCALINGS
    assert start.columns == tuple(range(14))
    want = in_our_order(logits(state, grey), XRV)
    close(run(small, start, np.repeat(grey, 3, axis=1))[:, :14], want)
    assert any("-1024 to 1024" in note for note in start.notes)


def test_groups_start_from_the_mean_and_the_unknown_from_nothing(state: Arrays, own: Arrays) -> None:
    group = (Label.PNEUMONIA, Label.INFILTRATION)
    outputs = [(Label.HERNIA,), group, (Label.MASS, Label.NO_FINDING), (Label.NO_FINDING,)]
    start = densenet121_from_torch(state, own, outputs, source="f")
    assert start.columns == (0, 1)
    rows = [CHEXNET.index(label) for label in group]
    np.testing.assert_allclose(
        start.weights["maps/kernel"][0, 0, :, 1], state["classifier.weight"][rows].mean(0), rtol=1e-6
    )
    np.testing.assert_allclose(start.weights["maps/bias"][1], state["classifier.bias"][rows].mean(), rtol=1e-6)
    assert (start.weights["maps/kernel"][..., 2:] == own["maps/kernel"][..., 2:]).all()
    assert densenet121_from_torch(state, own, [], source="f").columns == ()


@pytest.mark.parametrize(
    ("head", "note"),
    [
        ({}, "no classifier"),
        ({"weight": (1000, 22), "bias": (1000,)}, "1000 outputs"),
        ({"weight": (18, 22), "bias": (18,)}, "18 outputs was left out"),
        ({"weight": (14, 21), "bias": (14,)}, "not one linear layer"),
        ({"0.weight": (8, 22), "0.bias": (8,), "2.weight": (14, 8), "2.bias": (14,)}, "not one linear layer"),
        ({"weight": (14, 22)}, "not one linear layer"),
    ],
)
def test_other_heads_are_left_out_with_a_note(
    head: dict[str, tuple[int, ...]], note: str, state: Arrays, own: Arrays
) -> None:
    assert own["maps/kernel"].shape[2] == 12
    shapes = {name: tuple({22: 12, 21: 11}.get(n, n) for n in shape) for name, shape in head.items()}
    others = {name: array for name, array in state.items() if not name.startswith("classifier")}
    others |= {f"classifier.{name}": np.ones(shape, np.float32) for name, shape in shapes.items()}
    start = densenet121_from_torch(others, own, COLUMNS, source="f")
    assert start.columns == ()
    assert note in " ".join(start.notes)
    assert (start.weights["maps/kernel"] == own["maps/kernel"]).all()


def test_another_layout_is_one_clear_error(state: Arrays, own: Arrays) -> None:
    def fault(changed: Arrays, *words: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            densenet121_from_torch(changed, own, COLUMNS, source="some/model.pt")
        message = str(caught.value)
        assert message.startswith("some/model.pt: ")
        assert len(message) < 900
        for word in words:
            assert word in message, message

    layer = "features.denseblock1.denselayer2.conv1.weight"
    fault({"layer1.0.conv1.weight": np.zeros(1)}, "a ResNet", "start from a DenseNet121")
    fault({"epoch": np.zeros(1)}, "no DenseNet", "found 0 among 1 (epoch)")
    fault({**state, **{f"b.{n}": a for n, a in state.items()}}, "2 networks")
    fault(random_state((2, 3)), "expected blocks of 2-1 layers, found blocks of 2-3 layers", "too many")
    fault(random_state((2,)), "found blocks of 2 layers", "15 tensors are missing (features.transition1.norm.weight")
    fault(random_state((2, 1), growth=8), "features.denseblock1.denselayer1.conv1.weight is (32, 8, 1, 1)")
    fault({name: array for name, array in state.items() if name != layer}, f"1 tensors are missing ({layer})")
    fault({**state, "features.more": np.zeros(2)}, "1 are too many (features.more)")
    fault({**state, "fc.weight": np.zeros(2)}, "1 are too many (fc.weight)")
    fault({**state, layer: state[layer][:, :, 0]}, f"{layer} is (16, 12, 1) and should be (16, 12, 1, 1)")
    fault({**state, "features.denseblock1.denselayer2.conv.1.weight": state[layer]}, "two spellings")
    fault({**state, layer: np.full_like(state[layer], np.nan)}, "1 tensors hold numbers", "fetch")
    fault({**state, "features.norm5.running_var": -state["features.norm5.running_var"]}, "negative variance")
    with pytest.raises(ConfigurationError, match="this backbone is another"):
        densenet121_from_torch(state, {"conv1/kernel": np.zeros(1), "conv1_bn/gamma": np.zeros(1)}, [], source="f")
