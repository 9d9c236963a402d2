# Records what llama.cpp's converter makes of the golden folders, converted/NAME.json: the metadata of the architecture, and every tensor's
# type, shape and hash. Usage: record_converted.py LLAMA_CPP [--keep FOLDER] NAME..., in this folder; LLAMA_CPP is its source tree,
# --keep leaves the files themselves as FOLDER/NAME.gguf. NAME may be a path of a folder elsewhere (then only with --keep).
import argparse, json, logging, pathlib, shutil, sys, tempfile

parser = argparse.ArgumentParser()
parser.add_argument('llama_cpp', type=pathlib.Path)
parser.add_argument('--keep', type=pathlib.Path)
parser.add_argument('names', nargs='+')
args = parser.parse_args()
for part in ('', 'gguf-py'): sys.path.insert(0, str(args.llama_cpp / part))
import gguf, numpy, torch
from conversion import get_model_class
from conversion.base import ModelBase, TextModel, get_model_architecture, ModelType
logging.disable(logging.WARNING)

# The converter knows these only as other files of the same models spell them; what the config means stays.
SPELLED = {'dots1': {'scoring_func': 'sigmoid'}, 'hunyuan_v1_moe': {'moe_topk': [3] * 3, 'num_shared_expert': [1] * 3, 'rope_scaling': None},
           'phimoe': {'architectures': ['PhiMoEForCausalLM']}}


def convert(folder, out):
    if folder.name in SPELLED:
        with tempfile.TemporaryDirectory() as scratch:
            spelled = pathlib.Path(scratch) / 'spelled'
            shutil.copytree(folder, spelled)
            config = json.loads((folder / 'config.json').read_text()) | SPELLED[folder.name]
            (spelled / 'config.json').write_text(json.dumps(config))
            return convert(spelled, out)
    hparams = ModelBase.load_hparams(folder, False)
    kind = get_model_class(get_model_architecture(hparams, ModelType.TEXT))
    kind.set_vocab = TextModel._set_vocab_none  # the folders have no tokenizer
    kind.no_mtp = True  # nor layers that predict further tokens
    with torch.inference_mode(): kind(folder, gguf.LlamaFileType.ALL_F32, out, eager=True).write()


def fnv1a(data):  # as stable_hash (base/random.h)
    state = 14695981039346656037
    for byte in data: state = ((state ^ byte) * 1099511628211) & 0xffffffffffffffff
    return f'{state:016x}'


def plain(value):
    return [plain(each) for each in value] if isinstance(value, (list, numpy.ndarray)) else value.item() if isinstance(value, numpy.generic) else value


def described(path):
    reader = gguf.GGUFReader(path)
    name = reader.fields['general.architecture'].contents()
    metadata = {key: {'type': '/'.join(kind.name for kind in field.types), 'value': plain(field.contents())} for key, field in reader.fields.items()
                if key == 'general.architecture' or key.startswith(name + '.')}
    tensors = {tensor.name: {'type': tensor.tensor_type.name, 'shape': [int(extent) for extent in reversed(tensor.shape)],
                             'hash': fnv1a(tensor.data.tobytes())} for tensor in reader.tensors}
    return {'metadata': metadata, 'tensors': tensors}


with tempfile.TemporaryDirectory() as scratch:
    for name in args.names:
        folder = pathlib.Path(name) if '/' in name else pathlib.Path('..') / name
        out = (args.keep or pathlib.Path(scratch)) / (folder.name + '.gguf')
        convert(folder, out)
        if '/' in name: continue
        rows = described(out)
        lines = ['{']
        for part, end in (('metadata', '},'), ('tensors', '}')):
            lines += [f'"{part}": {{', ',\n'.join(f'  {json.dumps(key)}: {json.dumps(row)}' for key, row in rows[part].items()), end]
        pathlib.Path('converted', folder.name + '.json').write_text('\n'.join(lines + ['}']) + '\n')
