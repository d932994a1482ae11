//! The keys of service account tokens: RSA, as K3s has them. A cluster's key is made of two primes of a table, which its
//! CA picks: searching for primes takes seconds, and what the lab signs opens nothing but the lab.
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use rcgen::KeyPair;
use rsa::pkcs8::EncodePrivateKey as _;
use rsa::{BoxedUint, RsaPrivateKey};
use sha2::Digest as _;

/// Primes of 1024 bits, the largest first.
const PRIMES: [&str; 8] = [
    "f0623ebb70fee8c555394add37bc8aff6fed1122ea36483c7d58164bec9243fcaacb45e13335a589ac66b42c6a020983d792\
     1e486a15ea36978d01fd1908bae7c16ba8059a23381cde351f8ae7de79478dbf9e9f4861d16df3652175357e633044de455a\
     64e45f82f18ada58173ea530f3d10b3b9083744c0c4d6788f02bf3e5",
    "ebb4db30d9d7731d0034bdcffc32cb562f7089461181123acf0babfd4f29c1707ada217f1fe39d224ee2663e6fa6aae7c921\
     9c6ea1d79250241e3dd17edc2b57547ee44ac92344d434d00aab8e82cc065c2787a4af8e2668ddff572e8ebb34666f96e5c3\
     089555142ff16aae00cba2451a697b17f09fc24f90e9712796ef0205",
    "eb33487fe9ee93b31d582bc4c1690b33fc1ec7b88c8088b7afebb3fc110e61bdc36b35ef9643151b83e417c5d1ec26c8f978\
     f60302571c084ec0905ec2936387d23860e087e9d77c0d21f5a58cf1ffd207f504a5bd413246b5b0cd92b6377d6e1ba6f773\
     28dc8bc594bb8ced4fd9cc0346bac8c8186a45bf3dc6b737731528a9",
    "e368a0e1ed912187262a6af5d232a01e46c3eec446b110481afbcc61e2ee4028b3011b0602568b0c0631e890f6ba862474df\
     ef18877776d9318675e34cf67d4f51dca19bb0c139637f62032ce58c8e2bc568f9b2595c7cc73a05aeb82c35f6b5bd2a75cd\
     ac7b919efdd054bf29293f0bcc1464ff026790c247ce2f4df219d50f",
    "da30e8f2945f7e7ab154865aef7697bb73f5e02b998125358d82bd463e1d548381965d995612ed17779cf43de82a967ceccf\
     c744b30d0ad3403391ec5cf75f1398fb393cbd10e11f2127dce5cdb52d16e5539d1dd3ea4f050d4f2c90d5f23c8060a8eb36\
     ac259307ec8abe7849797fd20df0159af0956c23872d742788bc8995",
    "ce9e051b41e995b145bcaf7d6bcc8f9bad1db92821b6d2fecca350aa56136cf0f2b064835447a4853e2bfbeeba5621b7cdf8\
     e291dfab0588c8833d02b634a35bf4b7da09702f890c0def4f6b5385fae06560434c9f3ab67a51fb68e62c072ba736f3052d\
     7936fd0afe68a5f2bafd814edebd92c82e03fc8abd539f4a11a56703",
    "ce52183db5149500fa467bcdb55ddac3339bd311a41344cc8b958754a402f1078475b81ae1b44bc2843b2a0475b0d9fefc63\
     145f5ca25fc60f8a26ebd072eb12f319ba2d0ae60421071c6bca7dec78b5c407062017a3e6e71a6e9251fc5e415ac0362d2c\
     c224a467667518475604fbf049743afa85f9a497dba9da0587f85eaf",
    "ca95d9dbde242fbc3231a0c4f657242ed752f2ee79c88dd21fed0d58456883166dc8f330268d11e83dabef96715d737923ff\
     b6f21c111ddff023c6409410d4e0e5cc581c529ead2dbe4ad01aa5f903c4f4e8527a91641b956395f156437545ba596e9472\
     204c5b3bd71811daa0698875cdc6926d35e68fb5e9b9fb3768e069d1",
];

/// Which primes a seed picks: two different ones, the larger first.
fn picked(seed: &str) -> (usize, usize) {
    let hash = sha2::Sha256::digest(seed.as_bytes());
    let (a, step) = (usize::from(hash[0]) % PRIMES.len(), usize::from(hash[1]) % (PRIMES.len() - 1) + 1);
    let b = (a + step) % PRIMES.len();
    (a.min(b), a.max(b))
}

fn made((p, q): (usize, usize)) -> Option<KeyPair> {
    let prime = |i: usize| BoxedUint::from_be_hex(PRIMES[i], 1024).into_option();
    let key = RsaPrivateKey::from_p_q(prime(p)?, prime(q)?, BoxedUint::from(65_537u32)).ok()?;
    KeyPair::try_from(key.to_pkcs8_der().ok()?.as_bytes()).ok()
}

/// The key that a cluster signs tokens with; `seed` is its CA's key.
#[must_use]
pub fn of(seed: &str) -> Option<Arc<KeyPair>> {
    static MADE: Mutex<BTreeMap<(usize, usize), Arc<KeyPair>>> = Mutex::new(BTreeMap::new());
    let which = picked(seed);
    let mut known = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(key) = known.get(&which) {
        return Some(key.clone());
    }
    let key = Arc::new(made(which)?);
    known.insert(which, key.clone());
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_primes_is_a_key() {
        for p in 0..PRIMES.len() {
            for q in p + 1..PRIMES.len() {
                assert!(made((p, q)).is_some(), "{p} {q}");
            }
        }
        for seed in 0..64 {
            let (p, q) = picked(&seed.to_string());
            assert!(p < q && q < PRIMES.len());
        }
    }
}
