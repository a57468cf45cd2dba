// SPDX-License-Identifier: GPL-2.0

//! Before the module does anything: does it make the MACs that others make?
//!
//! The segments of RFC 9235, and two of them with HMAC-SHA-256, through the module's own parser,
//! KDF and MAC, over the kernel's crypto. A module that fails does not load.

use kernel::prelude::*;

use super::crypto::PreparedKey;
use super::rfc9235::Vector;
use super::rfc9235::MASTER_KEY;
use super::rfc9235::SHA_256;
use super::rfc9235::VECTORS;
use crate::proto::addr::Addr;
use crate::proto::addr::Endpoints;
use crate::proto::kdf::traffic_key;
use crate::proto::kdf::Isns;
use crate::proto::mac::tags_equal;
use crate::proto::mac::MacKey;
use crate::proto::mac::MacState;
use crate::proto::segment::MacHead;
use crate::proto::sne::Sne;
use crate::proto::wire::parse_auth;
use crate::proto::wire::Auth;
use crate::proto::wire::Isn;
use crate::proto::wire::TcpHeader;
use crate::proto::wire::MAC_LEN;

/// Longest packet of RFC 9235.
const PACKET_MAX: usize = 192;

pub(crate) fn run() -> Result {
    for vector in Iterator::chain(VECTORS.iter(), &SHA_256) {
        if verify(vector) != Some(true) {
            let (section, alg) = (vector.section, vector.alg as u8);
            pr_err!("self-test failed: RFC 9235 {section}, algorithm {alg}\n");
            return Err(Error::from_errno(
                -(kernel::bindings::ENOTRECOVERABLE as c_int),
            ));
        }
    }
    Ok(())
}

fn verify(vector: &Vector) -> Option<bool> {
    let mut packet = [0; PACKET_MAX];
    let packet = unhex(vector.packet, &mut packet)?;
    let (src, dst, segment) = match packet.first()? >> 4 {
        4 => {
            let segment = packet.get(usize::from(packet[0] & 0xf) * 4..)?;
            let addr = |at| Some(Addr::v4(*packet.get(at..)?.first_chunk()?));
            (addr(12)?, addr(16)?, segment)
        }
        _ => {
            let addr = |at| Some(Addr::v6(*packet.get(at..)?.first_chunk()?));
            (addr(8)?, addr(24)?, packet.get(40..)?)
        }
    };
    let header = TcpHeader::parse(segment).ok()?;
    let Ok(Auth::Ao(option)) = parse_auth(&header) else {
        return None;
    };
    let ends = Endpoints {
        src,
        dst,
        src_port: header.source(),
        dst_port: header.dest(),
    };
    let isns = Isns {
        src: Isn(vector.src_isn),
        dst: Isn(vector.dst_isn),
    };
    let mut key = PreparedKey::empty();
    traffic_key(vector.alg, MASTER_KEY, &ends, isns, &mut key);
    let head = MacHead::new(
        Sne(vector.sne),
        &ends,
        &header,
        option.offset,
        u32::try_from(segment.len()).ok()?,
        vector.covers,
    )
    .ok()?;
    let payload = segment.get(header.bytes().len()..)?;
    let mut digest = [0; 32];
    key.mac(&mut digest, |state| {
        state.update(head.bytes());
        state.update(payload);
    });
    Some(tags_equal(digest.first_chunk::<MAC_LEN>()?, &option.mac))
}

fn unhex<'a>(hex: &str, bytes: &'a mut [u8]) -> Option<&'a [u8]> {
    let digit = |c: u8| char::from(c).to_digit(16);
    let len = hex.len() / 2;
    for (byte, pair) in bytes
        .get_mut(..len)?
        .iter_mut()
        .zip(hex.as_bytes().chunks_exact(2))
    {
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    bytes.get(..len)
}
