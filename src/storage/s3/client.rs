//! The S3 client with the runtime it needs, made at the first request.
//!
//! `pitr-wal-push` most often finds that its file was stored ahead and never asks the bucket; so a store that was only
//! opened has started no thread, read no certificate and asked nobody for credentials.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::{ProfileFileCredentialsProvider, ProfileFileRegionProvider};
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector};
use tokio::runtime::Runtime;

use super::counters::{CountRequests, Counters};
use super::error::Failure;
use super::settings::S3Settings;
use crate::storage::StorageErrorKind;

/// Threads that move bytes. The threads of backup and restore wait in [`Engine::wait`] and work there as well.
const WORKERS: usize = 2;

/// Longest pause between two tries. Short against the time limit of a call, long against what a busy server asks for.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A running client.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) client: Client,
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
}

impl Engine {
    /// Starts the runtime and finds region and credentials. No request goes to the bucket.
    pub(super) fn start(settings: &S3Settings, counters: &Arc<Counters>) -> Result<Engine, Failure> {
        let local = |what: &str, error: &dyn std::fmt::Display| {
            Failure::new(StorageErrorKind::Unreachable, format!("could not {what}: {error}"))
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .thread_name("s3")
            .enable_all()
            .build()
            .map_err(|error| local("start threads for the network", &error))?;
        let trusted = match &settings.ca_file {
            Some(path) => Some(read_certificates(path)?),
            None => None,
        };
        let shared = runtime.block_on(shared_config(settings));
        if shared.region().is_none() {
            let reason =
                "the region is not known: neither s3_region, nor AWS_REGION, nor a profile, nor this machine says it";
            return Err(Failure::new(StorageErrorKind::WrongRegion, reason));
        }
        let mut config = aws_sdk_s3::config::Builder::from(&shared);
        if let Some(endpoint) = &settings.endpoint {
            config = config.endpoint_url(endpoint);
        }
        let config = config
            .http_client(http_client(settings, trusted))
            .force_path_style(settings.uses_path_style())
            // Ours are computed beforehand, by the processor; what is read carries its own checksums inside.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .retry_config(retries(settings))
            .timeout_config(timeouts(settings))
            .interceptor(CountRequests(Arc::clone(counters)))
            .build();
        Ok(Engine { client: Client::from_conf(config), runtime: Some(runtime) })
    }

    /// Waits for a request on the thread that wants its answer. Several threads may do so at once.
    pub(super) fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.as_ref().expect("it is there until it is dropped").block_on(work)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Waiting for a name server that does not answer would hold the process.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Region, credentials and what else the environment and the AWS configuration files say.
async fn shared_config(settings: &S3Settings) -> aws_config::SdkConfig {
    // Credentials come from Amazon's services, whatever the bucket's server and its certificate are.
    let http = https_client(None, TrustStore::default());
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http.clone());
    if let Some(profile) = &settings.profile {
        loader = loader.profile_name(profile);
    }
    let region = region(settings).await;
    if let Some(region) = &region {
        loader = loader.region(region.clone());
    }
    if let Some(path) = &settings.credentials_file {
        let files =
            EnvConfigFiles::builder().include_default_config_file(true).with_file(EnvConfigFileKind::Credentials, path);
        let config = ProviderConfig::default().with_http_client(http).with_region(region);
        let mut profile = ProfileFileCredentialsProvider::builder().configure(&config).profile_files(files.build());
        if let Some(name) = &settings.profile {
            profile = profile.profile_name(name);
        }
        loader = loader.credentials_provider(profile.build());
    }
    loader.load().await
}

/// The region, as far as it can be known without asking: with an endpoint of one's own the instance metadata service is not
/// there to be asked, and waiting for it would cost seconds.
async fn region(settings: &S3Settings) -> Option<Region> {
    if let Some(region) = &settings.region {
        return Some(Region::new(region.clone()));
    }
    settings.endpoint.as_ref()?;
    let mut profile = ProfileFileRegionProvider::builder();
    if let Some(name) = &settings.profile {
        profile = profile.profile_name(name);
    }
    let chain = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new()).or_else(profile.build());
    Some(chain.region().await.unwrap_or_else(|| Region::from_static("us-east-1")))
}

fn read_certificates(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| {
        let kind = match StorageErrorKind::of(&error) {
            StorageErrorKind::NotFound => StorageErrorKind::Unreachable,
            other => other,
        };
        Failure::new(kind, format!("could not read the certificates in \"{}\": {error}", path.display()))
    })
}

/// The client for the bucket's server.
fn http_client(settings: &S3Settings, trusted: Option<Vec<u8>>) -> SharedHttpClient {
    if settings.is_plain_http() {
        let proxy = proxy(settings.endpoint.as_deref());
        return Builder::new().build_with_connector_fn(move |limits, components| {
            let mut connector = Connector::builder().proxy_config(proxy.clone());
            connector.set_connector_settings(limits.cloned());
            connector.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
            connector.build_http()
        });
    }
    let trusted = trusted.map_or_else(TrustStore::default, |pem| TrustStore::empty().with_pem_certificate(pem));
    https_client(settings.endpoint.as_deref(), trusted)
}

fn https_client(endpoint: Option<&str>, trusted: TrustStore) -> SharedHttpClient {
    let proxy = proxy(endpoint);
    Builder::new().build_with_connector_fn(move |limits, components| {
        let context = TlsContext::builder().with_trust_store(trusted.clone()).build();
        let mut connector = Connector::builder()
            .proxy_config(proxy.clone())
            .tls_provider(Provider::rustls(CryptoMode::Ring))
            .tls_context(context.expect("a trust store alone makes a context"));
        connector.set_connector_settings(limits.cloned());
        connector.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
        connector.build()
    })
}

/// `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` of the environment. This host itself is never asked through a proxy.
fn proxy(endpoint: Option<&str>) -> ProxyConfig {
    let host = endpoint.and_then(|url| url.split_once("://")).map(|(_, rest)| rest);
    let local = host.is_some_and(|host| ["127.", "localhost", "[::1]"].iter().any(|start| host.starts_with(start)));
    if local { ProxyConfig::disabled() } else { ProxyConfig::from_env() }
}

/// The SDK's standard way: pauses that double, with jitter, longer when the server says `SlowDown`, and a budget that many
/// failures in a row use up, so that a server in trouble is not asked ever more.
fn retries(settings: &S3Settings) -> RetryConfig {
    RetryConfig::standard()
        .with_max_attempts(settings.attempts)
        .with_initial_backoff(Duration::from_millis(500))
        .with_max_backoff(LONGEST_PAUSE)
}

fn timeouts(settings: &S3Settings) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(settings.attempt_timeout.min(Duration::from_secs(10)))
        .operation_attempt_timeout(settings.attempt_timeout)
        .operation_timeout(settings.call_timeout)
        .build()
}
