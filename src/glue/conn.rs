// SPDX-License-Identifier: GPL-2.0

//! The state of a socket that has `TCP_AUTHOPT` set, or whose connection a policy protects; and the
//! one that stands in for the sockets of a namespace that have none.
//!
//! Transmit runs under the socket lock; receive under RCU only, on any CPU. What both use is
//! atomic, or replaced as a whole under RCU.

use kernel::prelude::*;
use kernel::sync::atomic::ordering::Relaxed;
use kernel::sync::atomic::Atomic;
use kernel::sync::Arc;
use kernel::types::Opaque;

use super::ffi::bindings;
use super::netns::Netns;
use super::rcu::RcuSlot;
use super::sock::Sock;
use super::traffic::TrafficKey;
use crate::proto::conn::lack_is_told;
use crate::proto::conn::preferred;
use crate::proto::criteria::Pair;
use crate::proto::noted::Extent;
use crate::proto::noted::Noted;
use crate::proto::policy::Require;
use crate::proto::sockopt::SockFlags;
use crate::proto::wire::KeyId;
use crate::proto::wire::KeyIds;

/// Traffic keys to receive with that are kept: while the peer changes keys, segments of the old
/// one still come.
const RX_KEYS: usize = 2;

/// The state of a socket.
#[repr(C)]
pub(super) struct Conn {
    // First: C and the stack know the state by the address of this.
    c: Opaque<bindings::tao_conn>,
    /// Whose keys it uses.
    pub(super) net: Arc<Netns>,
    flags: Atomic<u64>,
    /// Its program has asked for protection, by `TCP_AUTHOPT` or a key; else only a policy protects.
    asked: Atomic<bool>,
    /// The policy that protects its connection wants it to heed ICMP errors.
    accept_icmp: Atomic<bool>,
    /// Its connection is protected: decided by the SYN.
    protected: Atomic<bool>,
    /// Connected in repair, and not told yet between which ISNs: nothing can be signed.
    lacks_isns: Atomic<bool>,
    /// When the first segment was due for which there was no key ([`super::ffi::uptime`]), if none
    /// was signed since; else 0. Written under the socket lock.
    no_key_since: Atomic<u64>,
    /// Ids of the last segment sent.
    sent: Atomic<u32>,
    /// A [`Noted`]: the peer's ids, and where they came up. Receivers on any CPU change it.
    received: Atomic<u64>,
    /// The traffic key to send with, and the RNextKeyID beside it: one of each (RFC 5925 4, R11).
    /// Written under the socket lock.
    pub(super) tx: RcuSlot<TrafficKey>,
    /// Traffic keys whose MAC was right at least once, the one used last in front.
    pub(super) rx: [RcuSlot<TrafficKey>; RX_KEYS],
}

// A protected connection has at most 2 KiB beside its socket: this and three traffic keys, in
// slabs of 512 bytes.
// With lockdep a sequence count is larger. Such a kernel is not for machines where that matters.
const _: () = assert!(cfg!(CONFIG_DEBUG_LOCK_ALLOC) || size_of::<Conn>() <= 512);
const _: () = assert!(size_of::<TrafficKey>() + 16 <= 512);

// SAFETY: C has its own rules for `c`; all else is `Send`.
unsafe impl Send for Conn {}
// SAFETY: C has its own rules for `c`; all else is `Sync`.
unsafe impl Sync for Conn {}

impl Conn {
    /// State for `sk`, not attached to it yet. `flags`: what it has asked for, if it has.
    pub(super) fn new(
        net: Arc<Netns>,
        flags: Option<SockFlags>,
        sk: Sock<'_>,
        alloc: kernel::alloc::Flags,
    ) -> Option<KBox<Self>> {
        let conn = Self::for_nobody(net, flags, alloc)?;
        // SAFETY: `c` is zeroed, and where it stays.
        unsafe { bindings::tao_conn_init(conn.c.get(), sk.as_ptr()) };
        conn.tell_stack(flags.is_some_and(|flags| flags.accept_icmp));
        Some(conn)
    }

    /// State that is no socket's, and stands in for those that have none.
    pub(super) fn stand_in(net: Arc<Netns>) -> Option<KBox<Self>> {
        let conn = Self::for_nobody(net, None, GFP_KERNEL_ACCOUNT)?;
        // SAFETY: `c` is zeroed, and where it stays.
        unsafe { bindings::tao_conn_init(conn.c.get(), core::ptr::null_mut()) };
        Some(conn)
    }

    fn for_nobody(
        net: Arc<Netns>,
        flags: Option<SockFlags>,
        alloc: kernel::alloc::Flags,
    ) -> Option<KBox<Self>> {
        let conn = Self {
            c: Opaque::zeroed(),
            net,
            flags: Atomic::new(pack_flags(flags.unwrap_or_default())),
            asked: Atomic::new(flags.is_some()),
            accept_icmp: Atomic::new(false),
            protected: Atomic::new(false),
            lacks_isns: Atomic::new(false),
            no_key_since: Atomic::new(0),
            sent: Atomic::new(pack_ids(None)),
            received: Atomic::new(Noted::NOTHING.to_word()),
            tx: RcuSlot::empty(),
            rx: [const { RcuSlot::empty() }; RX_KEYS],
        };
        KBox::new(conn, alloc).ok()
    }

    pub(super) fn as_c(&self) -> *mut bindings::tao_conn {
        self.c.get()
    }

    /// What `TCP_AUTHOPT` set.
    pub(super) fn flags(&self) -> SockFlags {
        unpack_flags(self.flags.load(Relaxed))
    }

    /// What a socket that has this from another one has asked for, if it has.
    pub(super) fn asked_for(&self) -> Option<SockFlags> {
        self.asked().then(|| self.flags())
    }

    pub(super) fn asked(&self) -> bool {
        self.asked.load(Relaxed)
    }

    /// Under the socket lock.
    pub(super) fn set_flags(&self, flags: SockFlags) {
        self.flags.store(pack_flags(flags), Relaxed);
        self.asked.store(true, Relaxed);
        self.tell_stack(flags.accept_icmp || self.accept_icmp.load(Relaxed));
        // It was chosen with the old ones.
        self.tx.set(None);
    }

    /// Of the flags, one is for the stack's own code. Under the socket lock.
    fn tell_stack(&self, accept_icmp: bool) {
        // SAFETY: The state is initialised; only the caller writes.
        unsafe { bindings::tao_accept_icmp(self.c.get(), accept_icmp) };
    }

    /// Whether a connection that is about to begin has to be protected, and the policy that requires
    /// it, if it is one.
    pub(super) fn must_protect(&self, pair: &Pair) -> (bool, Option<Require>) {
        let required = self.net.keys.required(pair);
        let keyed = required.is_some() || self.asked() && self.net.is_keyed(pair);
        (keyed, required)
    }

    /// Whether signed segments of connections that need not be protected are dropped: a socket that
    /// never asked is the kernel's, whose rule that is.
    pub(super) fn rejects_unexpected(&self) -> bool {
        self.flags().reject_unexpected || !self.asked()
    }

    pub(super) fn is_protected(&self) -> bool {
        self.protected.load(Relaxed)
    }

    /// A connection begins: nothing of the socket's last one counts. `required`: by which policy it
    /// is protected, if it is by one. `signed_by`: the ids of the segment that opened it, where there
    /// was one. `in_repair`: there is none, and the ISNs are still to come. Under the socket lock.
    pub(super) fn begin(
        &self,
        protected: bool,
        required: Option<Require>,
        signed_by: Option<KeyIds>,
        in_repair: bool,
    ) {
        let by_policy = required.is_some_and(|require| require.accept_icmp);
        self.accept_icmp.store(by_policy, Relaxed);
        self.tell_stack(self.flags().accept_icmp || by_policy);
        self.tx.set(None);
        for slot in &self.rx {
            slot.set(None);
        }
        self.sent.store(pack_ids(None), Relaxed);
        self.told(signed_by);
        self.lacks_isns.store(in_repair, Relaxed);
        self.no_key_since.store(0, Relaxed);
        self.protected.store(protected, Relaxed);
    }

    /// The socket has no connection. A TIME-WAIT socket of its last one may still use the rest.
    pub(super) fn not_connected(&self) {
        self.protected.store(false, Relaxed);
    }

    /// Whether it was connected in repair and does not know its ISNs yet.
    pub(super) fn lacks_isns(&self) -> bool {
        self.lacks_isns.load(Relaxed)
    }

    /// Both ISNs of its connection mean something. Under the socket lock.
    pub(super) fn knows_isns(&self) -> bool {
        self.is_protected() && !self.lacks_isns()
    }

    /// `TCP_REPAIR_AUTHOPT` has told the ISNs.
    pub(super) fn know_isns(&self) {
        self.lacks_isns.store(false, Relaxed);
    }

    /// A segment is due, and there is no key to send it with. Whether the socket is told now. Under
    /// the socket lock.
    pub(super) fn lacks_key(&self, now: u64) -> bool {
        if self.no_key_since.load(Relaxed) == 0 {
            self.no_key_since.store(now, Relaxed);
        }
        lack_is_told(
            self.net.no_key_grace(),
            self.asked(),
            self.no_key_since.load(Relaxed),
            now,
        )
    }

    /// A segment was signed. Under the socket lock.
    pub(super) fn has_key(&self) {
        if self.no_key_since.load(Relaxed) != 0 {
            self.no_key_since.store(0, Relaxed);
        }
    }

    /// The KeyID to send with, if a key has it that can be used.
    pub(super) fn preferred(&self) -> Option<KeyId> {
        preferred(&self.flags(), self.received().map(|ids| ids.rnext))
    }

    pub(super) fn sent(&self) -> Option<KeyIds> {
        unpack_ids(self.sent.load(Relaxed))
    }

    pub(super) fn received(&self) -> Option<KeyIds> {
        Noted::from_word(self.received.load(Relaxed)).ids()
    }

    /// Most segments have the same ids: leave the cache line clean.
    pub(super) fn on_sent(&self, ids: KeyIds) {
        let new = pack_ids(Some(ids));
        if self.sent.load(Relaxed) != new {
            self.sent.store(new, Relaxed);
        }
    }

    /// A valid segment with these ids has come. Most say what the last one said, and cost a load.
    pub(super) fn on_received(&self, ids: KeyIds, extent: Extent) {
        let mut word = self.received.load(Relaxed);
        while let Some(new) = Noted::from_word(word).after(ids, extent) {
            match self.received.cmpxchg(word, new.to_word(), Relaxed) {
                Ok(_) => break,
                // Another segment was faster: what it has noted may be newer.
                Err(now) => word = now,
            }
        }
    }

    /// The peer's ids are these, and any that come with its segments are newer.
    pub(super) fn told(&self, ids: Option<KeyIds>) {
        self.received.store(Noted::told(ids).to_word(), Relaxed);
    }
}

fn pack_ids(ids: Option<KeyIds>) -> u32 {
    ids.map_or(0, |ids| {
        u32::from_le_bytes([ids.keyid.0, ids.rnext.0, 1, 0])
    })
}

fn unpack_ids(packed: u32) -> Option<KeyIds> {
    let [keyid, rnext, some, _] = packed.to_le_bytes();
    (some != 0).then_some(KeyIds {
        keyid: KeyId(keyid),
        rnext: KeyId(rnext),
    })
}

fn pack_flags(flags: SockFlags) -> u64 {
    let lock = |id: Option<KeyId>| id.map_or([0, 0], |id| [1, id.0]);
    let ([a, b], [c, d]) = (lock(flags.lock_keyid), lock(flags.lock_rnext));
    let [e, f] = [flags.reject_unexpected, flags.accept_icmp].map(u8::from);
    u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
}

fn unpack_flags(packed: u64) -> SockFlags {
    let [a, b, c, d, e, f, ..] = packed.to_le_bytes();
    SockFlags {
        lock_keyid: (a != 0).then_some(KeyId(b)),
        lock_rnext: (c != 0).then_some(KeyId(d)),
        reject_unexpected: e != 0,
        accept_icmp: f != 0,
    }
}
