"""The zip file that torch.save and torch.package write.

    torch.save            ROOT/data.pkl, ROOT/data/KEY (raw storages), ROOT/version, ROOT/byteorder
    torch.package         ROOT/PACKAGE/RESOURCE (pickles of any name), ROOT/.data/KEY.storage, ROOT/.data/version,
                          Python sources, which are of no interest

The layout has changed over the years and packages name their resources as they like, so pickles are recognised by
their first bytes and not by their names. Storages are stored without compression, and are read straight from the file,
range by range: a checkpoint is never held in memory. Where somebody has zipped one again with compression, its
storages are first unpacked into the temporary folder.

A stranger's zip can claim anything. Ranges are checked against the file's size, the sum of all sizes against a
multiple of it (a bomb is a small file that unpacks to a large one), and checksums while reading.
"""
import os
import re
import struct
import tempfile
import zipfile
import zlib

from . import CheckpointError, pickles, printable

MAX_ENTRIES = 100_000
MAX_PICKLES = 64
MAX_EXPANSION = 20        # times the file's own size, plus a little for small files
LITTLE = 16 << 20
LEGACY_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."   # the first pickle of torch.save before 1.6
CHUNK = 1 << 20


class Archive:
    """An open checkpoint. `scratch` is a folder in which compressed storages may be unpacked."""

    def __init__(self, path, scratch=None):
        self.path = path
        self.scratch = scratch
        self.file = None
        self.storages = None
        try:
            self.file = open(path, "rb")
            self.size = os.fstat(self.file.fileno()).st_size
            self.open_zip()
        except CheckpointError:
            self.close()
            raise
        except OSError as error:
            self.close()
            raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
        except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, IndexError) as error:
            self.close()
            raise CheckpointError(f"{path}: is a damaged zip archive: {printable(error)}") from None

    def close(self):
        if self.file:
            self.file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def fail(self, message):
        raise CheckpointError(f"{self.path}: {message}")

    # ---- entries

    def open_zip(self):
        start = self.file.read(len(LEGACY_MAGIC))
        if start == LEGACY_MAGIC:
            self.fail("was written by PyTorch before 1.6, whose format is not read; load it and save it again with a "
                      "newer one")
        if start[:4] != b"PK\x03\x04":
            self.fail("is not a PyTorch checkpoint (a zip archive); was it downloaded whole?")
        self.zip = zipfile.ZipFile(self.file)
        self.entries = {}
        total = 0
        for entry in self.zip.infolist():
            if entry.flag_bits & 1:
                self.fail(f"entry {printable(entry.filename)} is encrypted")
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                self.fail(f"entry {printable(entry.filename)} is compressed in a way that PyTorch never uses")
            if entry.filename in self.entries:
                self.fail(f"has two entries called {printable(entry.filename)}")
            total += entry.file_size
            self.entries[entry.filename] = entry
        if len(self.entries) > MAX_ENTRIES:
            self.fail(f"has {len(self.entries)} entries; at most {MAX_ENTRIES} are read")
        if total > MAX_EXPANSION * self.size + LITTLE:
            self.fail(f"would unpack to {total} bytes from {self.size}; that is no checkpoint")
        for name, entry in self.entries.items():
            if re.search(r"(^|/)byteorder$", name) and self.guarded(self.read, entry, 16).strip() != b"little":
                self.fail("was written on a big-endian machine; save it again on a little-endian one")

    def read(self, entry, limit):
        """A small entry as bytes, at most `limit` of them."""
        with self.zip.open(entry) as stream:
            return stream.read(limit)

    def pickles(self):
        """(name, object) of each pickle in the archive, those that most likely are the model first."""
        found = []
        for name, entry in self.entries.items():
            if storage_key(name) is None and not name.endswith((".py", "/")) and entry.file_size >= 2:
                if re.match(rb"\x80[\x02-\x05]", self.guarded(self.read, entry, 2)):
                    found.append((name, entry))
        if not found:
            self.fail("has no pickle in it, so that it is no PyTorch checkpoint")
        if len(found) > MAX_PICKLES:
            self.fail(f"has {len(found)} pickles; at most {MAX_PICKLES} are read")
        for name, entry in sorted(found, key=lambda item: (not item[0].endswith("data.pkl"), item[0])):
            if entry.file_size > pickles.MAX_BYTES:
                self.fail(f"its pickle {printable(name)} has {entry.file_size} bytes; at most {pickles.MAX_BYTES} are "
                          "read")
            data = self.guarded(self.read, entry, pickles.MAX_BYTES + 1)
            try:
                yield name, pickles.read(data)
            except CheckpointError as error:
                self.fail(f"{printable(name)}: {error}")

    def guarded(self, function, *arguments):
        """function(...), with whatever a damaged archive makes zipfile and zlib raise as our error."""
        try:
            return function(*arguments)
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, ValueError, struct.error, EOFError) as error:
            self.fail(f"is damaged: {printable(error)}")
        except OSError as error:
            self.fail(f"cannot be read: {error.strerror or error}")

    # ---- storages

    def storage(self, key):
        """The bytes of storage `key`, for reading."""
        if self.storages is None:
            self.storages = {storage_key(name): name for name in self.entries if storage_key(name) is not None}
        name = self.storages.get(key)
        if name is None:
            self.fail(f"has no storage {printable(key)}; was it downloaded whole?")
        return self.guarded(self.open_storage, self.entries[name])

    def open_storage(self, entry):
        if entry.compress_type == zipfile.ZIP_DEFLATED:
            unpacked = tempfile.TemporaryFile(dir=self.scratch)
            with self.zip.open(entry) as stream:   # zipfile checks the checksum, and stops at file_size
                while chunk := stream.read(CHUNK):
                    unpacked.write(chunk)
            size = unpacked.tell()
            return StorageBytes(self, entry, unpacked, 0, size, None)
        self.file.seek(entry.header_offset)
        header = self.file.read(30)
        if len(header) < 30 or header[:4] != b"PK\x03\x04":
            raise zipfile.BadZipFile(f"no local header for {entry.filename}")
        begin = entry.header_offset + 30 + sum(struct.unpack("<HH", header[26:30]))
        if entry.compress_size != entry.file_size or begin + entry.file_size > self.size:
            raise zipfile.BadZipFile(f"{entry.filename} does not lie within the file")
        return StorageBytes(self, entry, self.file, begin, entry.file_size, entry.CRC)


class StorageBytes:
    """A storage's bytes at begin .. begin + size of `file`."""

    def __init__(self, archive, entry, file, begin, size, checksum):
        self.archive = archive
        self.entry = entry
        self.file = file
        self.begin = begin
        self.size = size
        self.checksum = checksum

    def close(self):
        if self.file is not self.archive.file:
            self.file.close()

    def chunks(self, offset, length, chunk_size):
        """Yields the bytes offset .. offset + length, chunk_size at a time. Where that is the whole storage, its
        checksum is compared."""
        whole = self.checksum is not None and offset == 0 and length == self.size
        checksum = 0
        at = offset
        while at < offset + length:
            self.file.seek(self.begin + at)
            chunk = self.file.read(min(chunk_size, offset + length - at))
            if not chunk:
                self.archive.fail(f"ends within {printable(self.entry.filename)}; was it downloaded whole?")
            at += len(chunk)
            if whole:
                checksum = zlib.crc32(chunk, checksum)
            yield chunk
        if whole and checksum != self.checksum:
            self.archive.fail(f"{printable(self.entry.filename)} does not have its checksum; download the file again")


def storage_key(name):
    """The key of the storage that an entry holds, or None."""
    found = re.fullmatch(r"(?:[^/]*/)?(?:\.data/(.+)\.storage|data/([^/]+))", name)
    return None if found is None else found.group(1) or found.group(2)
