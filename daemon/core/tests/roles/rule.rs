//! The rules to judge by.

/// The rules, or rules with one mistake in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    Design,
    /// A cut is a number of events, on whatever branch.
    CutByNumber,
    /// An invite need not be in the past of the grant that names it.
    OpenInvite,
    /// A Cancel counts only against grants that have it in their past.
    WeakCancel,
    /// Who may redeem invites may redeem stronger ones, too.
    BoxAboveLevel,
    /// An owner may be let in by an invite.
    OwnerByInvite,
    /// A Revoke ends grants that have it in their past, too.
    RevokeEndsLaterGrants,
    /// A Revoke that ends one grant of a device ends all.
    RevokeEndsDevice,
    /// Equal ranks dominate each other.
    EqualRankDominates,
    /// Equal levels dominate each other.
    EqualLevelDominates,
    /// A Revoke that counts from when it is seen counts at once.
    UntilSeenIsNow,
    /// What a revoked inviter's invites let in stays, if the invite lies within the cut.
    RevokeSparesInvites,
    /// A head that its author had not seen counts.
    UnseenHeads,
    /// Scopes of grants given may be wider than those of the giver.
    WideningScopes,
    /// An owner grant has the rank of its author's senior grant, though only a junior one may give it.
    RankOfAnotherGrant,
    /// An owner grant has the smallest rank that any giver lends it, which need not be the senior giver's.
    SmallestRankLent,
    /// None but the recovery key dominates the founder.
    FounderAboveOwners,
    /// Of two devices of one short name, the one granted without knowledge of the other stays.
    TwinsApartStay,
    /// Admins give all flags, and invites, too.
    FlagsByAnybody,
    /// Whoever has a grant may redeem invites.
    AnybodyRedeems,
}

impl Rule {
    /// All mistakes.
    pub(crate) const MISTAKES: [Self; 19] = [
        Self::CutByNumber,
        Self::OpenInvite,
        Self::WeakCancel,
        Self::BoxAboveLevel,
        Self::OwnerByInvite,
        Self::RevokeEndsLaterGrants,
        Self::RevokeEndsDevice,
        Self::EqualRankDominates,
        Self::EqualLevelDominates,
        Self::UntilSeenIsNow,
        Self::RevokeSparesInvites,
        Self::UnseenHeads,
        Self::WideningScopes,
        Self::RankOfAnotherGrant,
        Self::SmallestRankLent,
        Self::FounderAboveOwners,
        Self::TwinsApartStay,
        Self::FlagsByAnybody,
        Self::AnybodyRedeems,
    ];
}
