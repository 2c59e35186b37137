//! Pictures that browsers take, made small: the most frequent colours of each, and a byte for each point.

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use std::collections::HashMap;
use std::io::{Read as _, Write as _};

const SIGNATURE: &[u8; 8] = b"\x89PNG\r\n\x1a\n";

/// So many of the palette's colours are the most frequent ones.
const FREQUENT: usize = 150;

/// A PNG of true colours as one with a palette of 256. Other colours become the nearest of these, which is not seen:
/// they are the edges of letters.
pub fn with_palette(png: &[u8]) -> Vec<u8> {
    let (width, height, points) = points(png);
    let palette = palette(&points);
    let mut known: HashMap<[u8; 3], u8> = HashMap::new();
    let mut lines = Vec::with_capacity(points.len() + height);
    for line in points.chunks(width) {
        lines.push(0);
        lines.extend(line.iter().map(|point| *known.entry(*point).or_insert_with(|| nearest(&palette, *point))));
    }
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::best());
    packed.write_all(&lines).unwrap();
    let mut small = SIGNATURE.to_vec();
    let size = |length: usize| u32::try_from(length).unwrap().to_be_bytes();
    chunk(&mut small, *b"IHDR", &[&size(width)[..], &size(height), &[8, 3, 0, 0, 0]].concat());
    chunk(&mut small, *b"PLTE", &palette.iter().flatten().copied().collect::<Vec<u8>>());
    chunk(&mut small, *b"IDAT", &packed.finish().unwrap());
    chunk(&mut small, *b"IEND", &[]);
    small
}

/// The most frequent colours; then, one after the other, the one that is farthest from all that are there.
fn palette(points: &[[u8; 3]]) -> Vec<[u8; 3]> {
    let mut counts: HashMap<[u8; 3], usize> = HashMap::new();
    for point in points {
        *counts.entry(*point).or_default() += 1;
    }
    let mut colours: Vec<[u8; 3]> = counts.keys().copied().collect();
    colours.sort_by_key(|colour| (std::cmp::Reverse(counts[colour]), *colour));
    let others = colours.split_off(colours.len().min(FREQUENT));
    let gap = |other: [u8; 3]| colours.iter().map(|one| apart(*one, other)).min().unwrap_or(u32::MAX);
    let mut others: Vec<(u32, [u8; 3])> = others.into_iter().map(|other| (gap(other), other)).collect();
    while colours.len() < 256 {
        let Some((_, farthest)) = others.iter().copied().max().filter(|(gap, _)| *gap > 0) else { break };
        colours.push(farthest);
        for (gap, other) in &mut others {
            *gap = apart(farthest, *other).min(*gap);
        }
    }
    colours
}

fn apart(one: [u8; 3], other: [u8; 3]) -> u32 {
    one.into_iter().zip(other).map(|(one, other)| u32::from(one.abs_diff(other)).pow(2)).sum()
}

fn nearest(palette: &[[u8; 3]], point: [u8; 3]) -> u8 {
    let (place, _) = palette.iter().enumerate().min_by_key(|(_, colour)| apart(**colour, point)).unwrap();
    u8::try_from(place).unwrap()
}

/// Width, height and the points of a PNG of eight bits a colour, line by line.
fn points(png: &[u8]) -> (usize, usize, Vec<[u8; 3]>) {
    assert!(png.starts_with(SIGNATURE), "this is no PNG");
    let number = |at: usize| usize::try_from(u32::from_be_bytes(png[at..at + 4].try_into().unwrap())).unwrap();
    let (mut width, mut height, mut bytes) = (0, 0, 0);
    let (mut packed, mut at) = (Vec::new(), SIGNATURE.len());
    while at < png.len() {
        let (length, kind, data) = (number(at), &png[at + 4..at + 8], at + 8);
        match kind {
            b"IHDR" => {
                (width, height) = (number(data), number(data + 4));
                bytes = match png[data + 8..data + 13] {
                    [8, 2, 0, 0, 0] => 3,
                    [8, 6, 0, 0, 0] => 4,
                    ref other => panic!("a PNG of another kind: {other:?}"),
                };
            }
            b"IDAT" => packed.extend_from_slice(&png[data..data + length]),
            _ => {}
        }
        at = data + length + 4;
    }
    let mut filtered = Vec::new();
    ZlibDecoder::new(&packed[..]).read_to_end(&mut filtered).unwrap();
    let mut above = vec![0_u8; width * bytes];
    let mut points = Vec::with_capacity(width * height);
    for line in filtered.chunks(width * bytes + 1) {
        let mut now = line[1..].to_vec();
        for at in 0..now.len() {
            let left = if at >= bytes { now[at - bytes] } else { 0 };
            let corner = if at >= bytes { above[at - bytes] } else { 0 };
            let guess = match line[0] {
                0 => 0,
                1 => left,
                2 => above[at],
                3 => u8::midpoint(left, above[at]),
                _ => paeth(left, above[at], corner),
            };
            now[at] = now[at].wrapping_add(guess);
        }
        points.extend(now.chunks(bytes).map(|point| [point[0], point[1], point[2]]));
        above = now;
    }
    (width, height, points)
}

/// The neighbour that is nearest to what all three say together.
fn paeth(left: u8, above: u8, corner: u8) -> u8 {
    let guess = i16::from(left) + i16::from(above) - i16::from(corner);
    let apart = |one: u8| guess.abs_diff(i16::from(one));
    [left, above, corner].into_iter().min_by_key(|one| apart(*one)).unwrap()
}

fn chunk(png: &mut Vec<u8>, kind: [u8; 4], data: &[u8]) {
    png.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
    let begin = png.len();
    png.extend(kind);
    png.extend(data);
    png.extend(crc32fast::hash(&png[begin..]).to_be_bytes());
}
