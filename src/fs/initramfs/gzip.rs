//! gzip (RFC 1952) around the cpio parser: header, deflate stream, CRC and length.

use crate::{Counted, Fault, cpio::Parser};
use abi::Errno;
use kalloc::{AllocError, KBox, KBytes};
use miniz_oxide::inflate::{
    TINFLStatus,
    core::{DecompressorOxide, TINFL_LZ_DICT_SIZE, decompress, inflate_flags::TINFL_FLAG_HAS_MORE_INPUT},
};

const FLAG_HCRC: u8 = 2;
const FLAG_EXTRA: u8 = 4;
const FLAG_NAME: u8 = 8;
const FLAG_COMMENT: u8 = 16;
/// Bits that must be zero.
const FLAG_RESERVED: u8 = 0xe0;

/// In a function of its own: should the value pass over the stack, it is free again afterwards.
#[inline(never)]
fn inflater() -> Result<KBox<DecompressorOxide>, AllocError> {
    KBox::try_new_default()
}

fn no_memory(_: AllocError) -> Fault {
    Fault::File(Errno::ENOMEM)
}

fn byte(at: &mut Counted<'_>) -> Result<u8, Fault> {
    let b = at.input.ahead().first().copied().ok_or(Fault::Truncated)?;
    at.consume(1);
    Ok(b)
}

fn number(at: &mut Counted<'_>, bytes: u32) -> Result<u32, Fault> {
    (0..bytes).try_fold(0u32, |n, i| Ok(n | u32::from(byte(at)?) << (8 * i)))
}

fn skip_header(at: &mut Counted<'_>) -> Result<(), Fault> {
    if (byte(at)?, byte(at)?) != (0x1f, 0x8b) {
        return Err(Fault::UnknownFormat);
    }
    let (method, flags) = (byte(at)?, byte(at)?);
    if method != 8 || flags & FLAG_RESERVED != 0 {
        return Err(Fault::BadCompression);
    }
    // Time, extra flags, system.
    number(at, 4)?;
    number(at, 2)?;
    if flags & FLAG_EXTRA != 0 {
        for _ in 0..number(at, 2)? {
            byte(at)?;
        }
    }
    for text in [FLAG_NAME, FLAG_COMMENT] {
        while flags & text != 0 && byte(at)? != 0 {}
    }
    if flags & FLAG_HCRC != 0 {
        number(at, 2)?;
    }
    Ok(())
}

/// Inflates one gzip member into the parser.
pub(crate) fn unpack(at: &mut Counted<'_>, parser: &mut Parser) -> Result<(), Fault> {
    skip_header(at)?;
    let mut state = inflater().map_err(no_memory)?;
    let mut window = KBytes::new();
    window.try_resize(TINFL_LZ_DICT_SIZE, 0).map_err(no_memory)?;
    let mut crc = crc32fast::Hasher::new();
    let (mut pos, mut total) = (0, 0u32);
    // What the parser refused. A stream that turns out to be damaged explains it better.
    let mut refused = None;
    loop {
        let chunk = at.input.ahead();
        let flags = if chunk.is_empty() { 0 } else { TINFL_FLAG_HAS_MORE_INPUT };
        let (status, taken, made) = decompress(&mut state, chunk, &mut window, pos, flags);
        at.consume(taken);
        let out = window.get(pos..pos.saturating_add(made)).ok_or(Fault::BadCompression)?;
        crc.update(out);
        total = total.wrapping_add(made as u32);
        if refused.is_none() {
            match parser.feed_all(out) {
                Err(Fault::File(e)) => return Err(Fault::File(e)),
                Err(fault) => refused = Some(fault),
                Ok(()) => {}
            }
        }
        pos = (pos + made) & (TINFL_LZ_DICT_SIZE - 1);
        match status {
            TINFLStatus::Done => break,
            TINFLStatus::HasMoreOutput => {}
            TINFLStatus::NeedsMoreInput if taken > 0 || made > 0 || flags != 0 => {
                if at.input.ahead().is_empty() {
                    return Err(Fault::Truncated);
                }
            }
            TINFLStatus::NeedsMoreInput | TINFLStatus::FailedCannotMakeProgress => return Err(Fault::Truncated),
            _ => return Err(Fault::BadCompression),
        }
    }
    if (number(at, 4)?, number(at, 4)?) != (crc.finalize(), total) {
        return Err(Fault::BadTrailer);
    }
    if let Some(fault) = refused {
        return Err(fault);
    }
    parser.finish()
}
