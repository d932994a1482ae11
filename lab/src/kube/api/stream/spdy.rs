//! As much of SPDY/3.1 as kubectl's port-forward speaks inside its WebSocket: streams, data, pings.
use std::collections::BTreeMap;

/// The words that the header compression of SPDY/3 starts from, each with its length before it.
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow authorization cache-control connection content-base content-encoding content-language content-length content-location content-md5 content-range content-type date etag expect expires from host if-match if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie keep-alive origin";
/// What follows the words, without lengths.
const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

fn dictionary() -> Vec<u8> {
    let mut out = Vec::new();
    for w in WORDS.split(' ').map(|w| w.replace('_', " ")) {
        out.extend(u32::try_from(w.len()).unwrap_or(0).to_be_bytes());
        out.extend(w.bytes());
    }
    out.extend(TAIL.bytes());
    out
}

/// What a peer sent.
#[derive(Debug, PartialEq)]
pub enum Frame {
    /// A new stream with its headers.
    Open(u32, BTreeMap<String, String>),
    /// Data of a stream; the flag says that it is the last.
    Data(u32, Vec<u8>, bool),
    /// A stream was given up.
    Reset(u32),
    /// To be sent back as it is.
    Ping(u32),
    /// The peer is done.
    GoAway,
    /// Anything that needs no answer.
    Other,
}

/// One direction of a connection: bytes become frames.
pub struct Reader {
    bytes: Vec<u8>,
    window: Vec<u8>,
    begun: bool,
}

impl Default for Reader {
    fn default() -> Self {
        Reader { bytes: Vec::new(), window: dictionary(), begun: false }
    }
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    b.get(at..at + 4).map_or(0, |x| u32::from_be_bytes([x[0], x[1], x[2], x[3]]))
}

impl Reader {
    /// Takes bytes in.
    pub fn put(&mut self, b: &[u8]) {
        self.bytes.extend(b);
    }

    /// The next whole frame; `None` when more bytes are needed or headers cannot be read.
    pub fn frame(&mut self) -> Option<Frame> {
        let length = usize::try_from(u32_at(&self.bytes, 4) & 0x00ff_ffff).ok()?;
        if self.bytes.len() < 8 + length {
            return None;
        }
        let frame: Vec<u8> = self.bytes.drain(..8 + length).collect();
        let (flags, body) = (frame[4], &frame[8..]);
        if frame[0] & 0x80 == 0 {
            return Some(Frame::Data(u32_at(&frame, 0), body.to_vec(), flags & 1 == 1));
        }
        Some(match u16::from_be_bytes([frame[2], frame[3]]) {
            1 => Frame::Open(u32_at(body, 0) & 0x7fff_ffff, self.headers(body.get(10..)?)?),
            3 => Frame::Reset(u32_at(body, 0)),
            6 => Frame::Ping(u32_at(body, 0)),
            7 => Frame::GoAway,
            _ => Frame::Other,
        })
    }

    fn headers(&mut self, packed: &[u8]) -> Option<BTreeMap<String, String>> {
        // The stream begins with two bytes of zlib and the checksum of the dictionary.
        let data = if std::mem::replace(&mut self.begun, true) { packed } else { packed.get(6..)? };
        let from = self.window.len();
        inflate(data, &mut self.window)?;
        let plain = self.window.split_off(from);
        self.window.extend(&plain);
        let mut at = 4;
        let mut text = || {
            let n = usize::try_from(u32_at(&plain, at)).ok()?;
            let t = plain.get(at + 4..at + 4 + n)?;
            at += 4 + n;
            Some(String::from_utf8_lossy(t).into_owned())
        };
        (0..u32_at(&plain, 0)).map(|_| Some((text()?, text()?))).collect()
    }
}

struct Bits<'a> {
    data: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn bit(&mut self) -> Option<usize> {
        let b = *self.data.get(self.at / 8)? >> (self.at % 8) & 1;
        self.at += 1;
        Some(usize::from(b))
    }
    fn take(&mut self, n: usize) -> Option<usize> {
        (0..n).try_fold(0, |v, i| Some(v | self.bit()? << i))
    }
    fn byte_aligned(&mut self) {
        self.at = self.at.div_ceil(8) * 8;
    }
    fn symbol(&mut self, codes: &Codes) -> Option<usize> {
        let (mut code, mut first, mut index) = (0, 0, 0);
        for count in &codes.counts[1..] {
            code |= self.bit()?;
            if code < first + count {
                return codes.symbols.get(index + code - first).copied();
            }
            index += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        None
    }
}

/// Canonical codes: how many there are of each length, and their symbols in order.
struct Codes {
    counts: [usize; 16],
    symbols: Vec<usize>,
}

fn codes(lengths: &[usize]) -> Codes {
    let mut counts = [0; 16];
    lengths.iter().filter(|l| **l > 0).for_each(|l| counts[*l] += 1);
    let mut symbols: Vec<usize> = (0..lengths.len()).filter(|i| lengths[*i] > 0).collect();
    symbols.sort_by_key(|i| (lengths[*i], *i));
    Codes { counts, symbols }
}

const LENGTH: [usize; 29] =
    [3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258];
const LENGTH_BITS: [usize; 29] =
    [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
const DISTANCE: [usize; 30] = [
    1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145,
    8193, 12289, 16385, 24577,
];
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

fn dynamic(b: &mut Bits<'_>) -> Option<(Codes, Codes)> {
    let (literals, distances, n) = (b.take(5)? + 257, b.take(5)? + 1, b.take(4)? + 4);
    let mut lengths = [0; 19];
    for i in &ORDER[..n] {
        lengths[*i] = b.take(3)?;
    }
    let meta = codes(&lengths);
    let mut all: Vec<usize> = Vec::new();
    while all.len() < literals + distances {
        let (value, times) = match b.symbol(&meta)? {
            16 => (*all.last()?, 3 + b.take(2)?),
            17 => (0, 3 + b.take(3)?),
            18 => (0, 11 + b.take(7)?),
            n => (n, 1),
        };
        all.extend(std::iter::repeat_n(value, times));
    }
    Some((codes(all.get(..literals)?), codes(all.get(literals..)?)))
}

fn fixed() -> (Codes, Codes) {
    let lengths: Vec<usize> = (0..288)
        .map(|i| match i {
            0..144 => 8,
            144..256 => 9,
            256..280 => 7,
            _ => 8,
        })
        .collect();
    (codes(&lengths), codes(&[5; 30]))
}

/// Inflates blocks up to the end of `data` onto `out`, which is also what they refer back to.
fn inflate(data: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut b = Bits { data, at: 0 };
    while b.at + 3 <= data.len() * 8 {
        let last = b.bit()?;
        match b.take(2)? {
            0 => {
                b.byte_aligned();
                let n = b.take(16)?;
                b.take(16)?;
                let from = b.at / 8;
                out.extend(data.get(from..from + n)?);
                b.at += n * 8;
            }
            kind => {
                let (literals, distances) = if kind == 1 { fixed() } else { dynamic(&mut b)? };
                block(&mut b, &literals, &distances, out)?;
            }
        }
        if last == 1 {
            break;
        }
    }
    Some(())
}

fn block(b: &mut Bits<'_>, literals: &Codes, distances: &Codes, out: &mut Vec<u8>) -> Option<()> {
    loop {
        match b.symbol(literals)? {
            256 => return Some(()),
            n @ 0..256 => out.push(u8::try_from(n).ok()?),
            n => {
                let length = *LENGTH.get(n - 257)? + b.take(LENGTH_BITS[n - 257])?;
                let d = b.symbol(distances)?;
                let bits = (d / 2).saturating_sub(1);
                let back = *DISTANCE.get(d)? + b.take(bits)?;
                let from = out.len().checked_sub(back)?;
                for i in 0..length {
                    out.push(out[from + i]);
                }
            }
        }
    }
}

/// Data of a stream.
#[must_use]
pub fn data(stream: u32, bytes: &[u8], last: bool) -> Vec<u8> {
    let mut out = stream.to_be_bytes().to_vec();
    let head = u32::from(last) << 24 | u32::try_from(bytes.len()).unwrap_or(0) & 0x00ff_ffff;
    out.extend(head.to_be_bytes());
    out.extend(bytes);
    out
}

fn control(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0x80, 3, 0, kind];
    out.extend((u32::try_from(body.len()).unwrap_or(0) & 0x00ff_ffff).to_be_bytes());
    out.extend(body);
    out
}

/// The answer to a ping.
#[must_use]
pub fn ping(id: u32) -> Vec<u8> {
    control(6, &id.to_be_bytes())
}

/// Writes the replies of one connection: their headers share one compressed stream.
#[derive(Default)]
pub struct Writer {
    begun: bool,
}

impl Writer {
    /// Accepts a stream, without headers of its own.
    pub fn reply(&mut self, stream: u32) -> Vec<u8> {
        let mut body = stream.to_be_bytes().to_vec();
        if !std::mem::replace(&mut self.begun, true) {
            // A zlib stream that uses no dictionary.
            body.extend([0x78, 0x01]);
        }
        // One stored block with the count of headers, and the empty block of a flush.
        body.extend([0, 4, 0, 0xfb, 0xff, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
        control(2, &body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dictionary_is_that_of_the_protocol() {
        let (mut a, mut b) = (1u32, 0u32);
        for byte in dictionary() {
            a = (a + u32::from(byte)) % 65_521;
            b = (b + a) % 65_521;
        }
        assert_eq!(b << 16 | a, 0xe3c6_a7c2);
    }

    #[test]
    fn blocks_of_all_kinds_inflate() {
        use std::io::Write;
        let text = "port: 8080, port: 8081, streamtype: error, streamtype: data. ".repeat(9);
        for level in [0, 1, 9] {
            let mut z = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::new(level));
            z.write_all(text.as_bytes()).unwrap();
            let mut out = Vec::new();
            inflate(&z.finish().unwrap(), &mut out).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), text, "level {level}");
        }
    }

    #[test]
    fn frames_come_in_any_pieces() {
        let mut r = Reader::default();
        let bytes = [data(5, b"hello", true), ping(1)].concat();
        for b in bytes.chunks(3) {
            r.put(b);
        }
        assert_eq!(r.frame(), Some(Frame::Data(5, b"hello".to_vec(), true)));
        assert_eq!(r.frame(), Some(Frame::Ping(1)));
        assert_eq!(r.frame(), None);
    }
}
