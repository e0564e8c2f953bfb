/*
 * What the bytes say they are.
 *
 * libsndfile reads about thirty kinds of files and guesses well. Two things are done before it sees a
 * byte. Files that are none of WAV, AIFF, FLAC, Ogg and MP3 are turned away by their first bytes: the
 * rest are formats of sampling keyboards and mathematics programs that nobody sends, and the parsers
 * nobody tests. And the audio that a header announces is compared with the bytes that are there, because
 * libsndfile shortens in silence what is cut short: half a song uploaded would come back as half a
 * variation, without a word.
 *
 * Where the announced size is one that a program writing to a pipe leaves behind (ffmpeg: all ones,
 * sox: just under 2 GiB, GStreamer: zero), there is nothing to compare with and the audio goes to the
 * end of the file.
 *
 *   WAV   RIFF, RIFX and RF64: size of the data chunk.  Microsoft "Multimedia Programming Interface
 *         and Data Specifications 1.0"; EBU Tech 3306.
 *   AIFF  size of the SSND chunk, number of frames in COMM.  Apple "Audio Interchange File Format 1.3".
 *   Ogg   the last page must be whole (RFC 3533). A stream that lacks its end-of-stream flag was
 *         recorded until somebody stopped it and is accepted.
 *   MP3   the byte count of a Xing or Info header. Without one there is nothing that announces a length.
 *   FLAC  the number of samples in STREAMINFO (RFC 9639): compared by read.c with what was decoded.
 */
#include <inttypes.h>
#include <string.h>

#include "engine/audio/file.h"
#include "engine/audio/internal.h"

static uint32_t little32(const unsigned char *b) {
  return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static uint32_t big32(const unsigned char *b) {
  return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | (uint32_t)b[3];
}

static uint64_t little64(const unsigned char *b) {
  return (uint64_t)little32(b) | (uint64_t)little32(b + 4) << 32;
}

static void put_little(unsigned char *b, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; i++) {
    b[i] = (unsigned char)(value >> (8 * i));
  }
}

static int fail_short(const char *name, uint64_t announced, uint64_t present, struct vamp_error *error) {
  return vamp_fail(error, VAMP_INVALID,
                   "%s is cut short: its header announces %" PRIu64 " bytes of audio and %" PRIu64
                   " of them are missing; send the whole file",
                   vamp_file_label(name).text, announced, announced - present);
}

/* ---- WAV and AIFF: chunks of an identifier, a size and a body ------------------------------------ */

struct chunk {
  char id[4];
  uint64_t size; /* as announced */
  uint64_t body; /* offset */
};

/* Walks over the chunks of a file. */
struct chunks {
  struct vamp_source *source;
  bool big_endian;
  uint64_t offset; /* of the next chunk */
  int left;        /* how many more are looked at: real files have a dozen */
};

static struct chunks chunks_begin(struct vamp_source *source, bool big_endian) {
  return (struct chunks){.source = source, .big_endian = big_endian, .offset = 12, .left = 10000};
}

/* False at the end. */
static bool next_chunk(struct chunks *chunks, struct chunk *chunk) {
  unsigned char header[8];
  if (chunks->left-- == 0 ||
      vamp_source_read_at(chunks->source, chunks->offset, header, sizeof header) != sizeof header) {
    return false;
  }
  memcpy(chunk->id, header, 4);
  chunk->size = chunks->big_endian ? big32(header + 4) : little32(header + 4);
  chunk->body = chunks->offset + 8;
  chunks->offset = chunk->body + chunk->size + (chunk->size & 1);
  return true;
}

/* At or above this, a 32-bit size is taken for one that a pipe left behind: the smallest of those in use
 * is sox's. Audio that is really as large is far over any limit. */
#define UNKNOWN_WAVE_SIZE 0x7FFFF000u
#define UNKNOWN_AIFF_SIZE 0x7F000000u

/* The data chunk of a WAV file whose size is zero: true where the file was never finished, false where
 * it really holds nothing. A finished file's RIFF size counts the chunks after the empty one. */
static bool is_unfinished(uint32_t riff_size, const struct chunk *data, uint64_t present) {
  return present > 0 && (riff_size >= UNKNOWN_WAVE_SIZE || (uint64_t)riff_size + 8 <= data->body);
}

static int inspect_wave_data(struct vamp_source *source, const unsigned char *header,
                             const struct chunk *data, const struct chunk *ds64, const char *name,
                             struct vamp_error *error) {
  uint64_t present = vamp_source_size(source) - data->body;
  if (memcmp(header, "RF64", 4) == 0 && data->size == UINT32_MAX) {
    unsigned char sizes[16]; /* of the RIFF, of the data */
    if (ds64->size < sizeof sizes ||
        vamp_source_read_at(source, ds64->body, sizes, sizeof sizes) != sizeof sizes) {
      return vamp_fail(error, VAMP_INVALID, "%s is an RF64 file without the ds64 chunk that holds its size",
                       vamp_file_label(name).text);
    }
    uint64_t announced = little64(sizes + 8);
    if (announced == 0 || announced == UINT64_MAX) {
      source->patch.offset = ds64->body + 8;
      source->patch.count = 8;
      put_little(source->patch.bytes, present, 8);
      return 0;
    }
    return announced > present ? fail_short(name, announced, present, error) : 0;
  }
  if (data->size == 0 && header[3] == 'F' && is_unfinished(little32(header + 4), data, present)) {
    source->patch.offset = data->body - 4;
    source->patch.count = 4;
    put_little(source->patch.bytes, present < UINT32_MAX ? present : UINT32_MAX, 4);
    return 0;
  }
  if (data->size > present && data->size < UNKNOWN_WAVE_SIZE) {
    return fail_short(name, data->size, present, error);
  }
  return 0;
}

static int inspect_wave(struct vamp_source *source, const char *name, struct vamp_error *error) {
  unsigned char header[12];
  struct chunk chunk, ds64 = {.size = 0};
  vamp_source_read_at(source, 0, header, sizeof header);
  struct chunks chunks = chunks_begin(source, header[3] == 'X');
  while (next_chunk(&chunks, &chunk)) {
    if (memcmp(chunk.id, "ds64", 4) == 0) {
      ds64 = chunk;
    } else if (memcmp(chunk.id, "data", 4) == 0) {
      return inspect_wave_data(source, header, &chunk, &ds64, name, error);
    }
  }
  return vamp_fail(error, VAMP_INVALID, "%s is a WAV file without audio: its data chunk is missing",
                   vamp_file_label(name).text);
}

/* The bytes of audio that COMM announces in an AIFF file (an AIFC file may be compressed: 0). */
static uint64_t announced_by_comm(struct vamp_source *source, const struct chunk *comm, bool compressed) {
  unsigned char body[8];
  if (compressed || comm->size < sizeof body ||
      vamp_source_read_at(source, comm->body, body, sizeof body) != sizeof body) {
    return 0;
  }
  uint64_t channels = (uint64_t)body[0] << 8 | body[1], bits = (uint64_t)body[6] << 8 | body[7];
  return channels * big32(body + 2) * ((bits + 7) / 8);
}

static int inspect_aiff(struct vamp_source *source, const char *name, struct vamp_error *error) {
  unsigned char header[12];
  struct chunk chunk, comm = {.size = 0}, sound = {.size = 0, .body = 0};
  vamp_source_read_at(source, 0, header, sizeof header);
  struct chunks chunks = chunks_begin(source, true);
  while (next_chunk(&chunks, &chunk)) {
    if (memcmp(chunk.id, "COMM", 4) == 0) {
      comm = chunk;
    } else if (memcmp(chunk.id, "SSND", 4) == 0) {
      sound = chunk;
    }
  }
  if (sound.body == 0) {
    return vamp_fail(error, VAMP_INVALID, "%s is an AIFF file without audio: its SSND chunk is missing",
                     vamp_file_label(name).text);
  }
  if (sound.size == 0 || sound.size >= UNKNOWN_AIFF_SIZE) {
    return 0;
  }
  uint64_t present = vamp_source_size(source) - sound.body;
  if (sound.size > present) {
    return fail_short(name, sound.size, present, error);
  }
  uint64_t announced = announced_by_comm(source, &comm, header[11] == 'C') + 8; /* SSND's own two fields */
  return announced > sound.size ? fail_short(name, announced, sound.size, error) : 0;
}

/* ---- Ogg ----------------------------------------------------------------------------------------- */

#define OGG_HEADER 27
#define OGG_POSITION 6 /* offset of the 64-bit position */
#define OGG_LARGEST_PAGE (OGG_HEADER + 255 + 255 * 255)

/* The size of the page at `page`, as far as the `left` bytes that there are tell. */
static size_t ogg_page_size(const unsigned char *page, size_t left) {
  size_t size = OGG_HEADER;
  if (left >= OGG_HEADER) {
    size_t segments = page[OGG_HEADER - 1];
    size += segments;
    for (size_t i = OGG_HEADER; i < OGG_HEADER + segments && i < left; i++) {
      size += page[i];
    }
  }
  return size;
}

/* Only the end of the file is looked at: that is where it was cut. */
static int inspect_ogg(struct vamp_source *source, const char *name, struct vamp_error *error) {
  unsigned char tail[OGG_LARGEST_PAGE];
  uint64_t size = vamp_source_size(source);
  uint64_t start = size > sizeof tail ? size - sizeof tail : 0;
  size_t length = vamp_source_read_at(source, start, tail, sizeof tail);
  for (size_t i = length; i-- > 0;) {
    size_t left = length - i;
    if (left < 4 || memcmp(tail + i, "OggS", 4) != 0) {
      continue;
    }
    const unsigned char *page = tail + i;
    size_t page_size = ogg_page_size(page, left);
    if (page_size > left) {
      return vamp_fail(
          error, VAMP_INVALID,
          "%s is cut short: %zu bytes or more of its last Ogg page are missing; send the whole file",
          vamp_file_label(name).text, page_size - left);
    }
    /* The last page's position is the number of samples; it is 0 on the pages of headers. libvorbis would
     * find out as well, and lose a few kilobytes of memory each time. */
    if (little64(page + OGG_POSITION) == 0) {
      return vamp_fail(error, VAMP_INVALID, "%s holds no samples", vamp_file_label(name).text);
    }
    return 0;
  }
  return 0;
}

/* ---- MP3 ----------------------------------------------------------------------------------------- */

static bool is_mpeg_header(uint32_t header) {
  uint32_t version = header >> 19 & 3, layer = header >> 17 & 3, rate = header >> 10 & 3;
  return header >> 21 == 0x7FF && version != 1 && layer != 0 && (header >> 12 & 15) != 15 && rate != 3;
}

/* The Xing (or Info) header that encoders put into a silent first frame: where it is, counted from the
 * frame's beginning, or 0. */
static size_t find_xing(const unsigned char *frame, size_t length) {
  uint32_t header = big32(frame);
  bool first_version = (header >> 19 & 3) == 3, mono = (header >> 6 & 3) == 3;
  size_t side = first_version ? (mono ? 17 : 32) : (mono ? 9 : 17);
  for (size_t checksum = 0; checksum <= 2; checksum += 2) {
    size_t at = 4 + side + checksum;
    if (at + 16 <= length && (memcmp(frame + at, "Xing", 4) == 0 || memcmp(frame + at, "Info", 4) == 0)) {
      return at;
    }
  }
  return 0;
}

/* Leaves out the tags that may stand at the end, APEv2 before ID3v1: they would only be taken for damaged
 * audio. */
static void skip_end_tags(struct vamp_source *source) {
  unsigned char tag[32];
  uint64_t size = vamp_source_size(source);
  if (size > 128 && vamp_source_read_at(source, size - 128, tag, 3) == 3 && memcmp(tag, "TAG", 3) == 0) {
    size -= 128;
  }
  if (size > sizeof tag && vamp_source_read_at(source, size - sizeof tag, tag, sizeof tag) == sizeof tag &&
      memcmp(tag, "APETAGEX", 8) == 0) {
    uint64_t whole = little32(tag + 12); /* its items and this footer; a header of 32 bytes is not counted */
    whole += little32(tag + 20) & 0x80000000u ? 32 : 0;
    size -= whole < size ? whole : 0;
  }
  source->end = source->begin + size;
}

static int inspect_mpeg(struct vamp_source *source, const char *name, struct vamp_error *error) {
  unsigned char frame[64];
  skip_end_tags(source);
  size_t length = vamp_source_read_at(source, 0, frame, sizeof frame);
  size_t xing = find_xing(frame, length);
  uint32_t flags = xing ? big32(frame + xing + 4) : 0;
  bool has_frames = flags & 1, has_bytes = flags & 2;
  source->hides_length = !has_frames || big32(frame + xing + 8) == 0;
  if (has_bytes) {
    uint64_t announced = big32(frame + xing + (has_frames ? 12 : 8));
    if (announced > vamp_source_size(source)) {
      return fail_short(name, announced, vamp_source_size(source), error);
    }
  }
  return 0;
}

/* ---- any ----------------------------------------------------------------------------------------- */

/* Leaves out ID3v2 tags, which any of the formats may have before it: they hold pictures of megabytes,
 * and nothing that we want to know. True where there was one. */
static bool skip_tags(struct vamp_source *source) {
  unsigned char header[10];
  bool found = false;
  while (vamp_source_read_at(source, 0, header, sizeof header) == sizeof header &&
         memcmp(header, "ID3", 3) == 0 && !((header[6] | header[7] | header[8] | header[9]) & 0x80)) {
    uint64_t size =
        (uint64_t)header[6] << 21 | (uint64_t)header[7] << 14 | (uint64_t)header[8] << 7 | header[9];
    size += sizeof header + (header[5] & 0x10 ? 10 : 0); /* a footer */
    source->begin += size < vamp_source_size(source) ? size : vamp_source_size(source);
    found = true;
  }
  return found;
}

/* Moves to the first MP3 frame: some taggers leave more padding after a tag than the tag announces. */
static void skip_padding(struct vamp_source *source) {
  unsigned char bytes[4096];
  size_t length = vamp_source_read_at(source, 0, bytes, sizeof bytes);
  size_t zeros = 0;
  while (zeros < length && bytes[zeros] == 0) {
    zeros++;
  }
  if (zeros + 4 <= length && is_mpeg_header(big32(bytes + zeros))) {
    source->begin += zeros;
  }
}

int vamp_container_inspect(struct vamp_source *source, const char *name, struct vamp_error *error) {
  unsigned char head[12] = {0};
  if (vamp_source_size(source) == 0) {
    return vamp_fail(error, VAMP_INVALID, "%s is empty", vamp_file_label(name).text);
  }
  if (skip_tags(source)) {
    skip_padding(source);
  }
  vamp_source_read_at(source, 0, head, sizeof head);
  bool is_riff = memcmp(head, "RIFF", 4) == 0 || memcmp(head, "RIFX", 4) == 0 || memcmp(head, "RF64", 4) == 0;
  if (is_riff && memcmp(head + 8, "WAVE", 4) == 0) {
    return inspect_wave(source, name, error);
  }
  if (memcmp(head, "FORM", 4) == 0 &&
      (memcmp(head + 8, "AIFF", 4) == 0 || memcmp(head + 8, "AIFC", 4) == 0)) {
    return inspect_aiff(source, name, error);
  }
  if (memcmp(head, "fLaC", 4) == 0) {
    return 0;
  }
  if (memcmp(head, "OggS", 4) == 0) {
    return inspect_ogg(source, name, error);
  }
  if (is_mpeg_header(big32(head))) {
    return inspect_mpeg(source, name, error);
  }
  return vamp_fail(error, VAMP_INVALID,
                   "%s is not an audio file that can be read: send WAV, FLAC, Ogg, Opus, MP3 or AIFF",
                   vamp_file_label(name).text);
}
