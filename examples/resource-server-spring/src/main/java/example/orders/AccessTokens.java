package example.orders;

import java.io.IOException;
import java.net.URI;
import java.net.URL;
import java.time.Duration;
import java.util.Objects;
import java.util.Set;

import com.nimbusds.jose.JOSEObjectType;
import com.nimbusds.jose.JWSAlgorithm;
import com.nimbusds.jose.KeySourceException;
import com.nimbusds.jose.jwk.source.JWKSource;
import com.nimbusds.jose.jwk.source.JWKSourceBuilder;
import com.nimbusds.jose.jwk.source.RateLimitReachedException;
import com.nimbusds.jose.proc.DefaultJOSEObjectTypeVerifier;
import com.nimbusds.jose.proc.JWSVerificationKeySelector;
import com.nimbusds.jose.proc.SecurityContext;
import com.nimbusds.jose.util.DefaultResourceRetriever;
import com.nimbusds.jose.util.Resource;
import com.nimbusds.jwt.proc.DefaultJWTProcessor;
import org.springframework.security.oauth2.core.DelegatingOAuth2TokenValidator;
import org.springframework.security.oauth2.core.OAuth2Error;
import org.springframework.security.oauth2.core.OAuth2TokenValidatorResult;
import org.springframework.security.oauth2.jwt.BadJwtException;
import org.springframework.security.oauth2.jwt.Jwt;
import org.springframework.security.oauth2.jwt.JwtAudienceValidator;
import org.springframework.security.oauth2.jwt.JwtClaimNames;
import org.springframework.security.oauth2.jwt.JwtClaimValidator;
import org.springframework.security.oauth2.jwt.JwtDecoder;
import org.springframework.security.oauth2.jwt.JwtException;
import org.springframework.security.oauth2.jwt.JwtIssuerValidator;
import org.springframework.security.oauth2.jwt.JwtTimestampValidator;
import org.springframework.security.oauth2.jwt.NimbusJwtDecoder;

/**
 * Verifies the access tokens (RFC 9068) of one issuer for one audience.
 *
 * <p>The key set is fetched when it is first needed, then every ten minutes, and earlier for a key it does not have, but at
 * most twice in five seconds, whatever tokens come.
 */
class AccessTokens implements JwtDecoder {

    private static final Duration KEEP_KEYS = Duration.ofMinutes(10);
    private static final Duration BETWEEN_FETCHES = Duration.ofSeconds(5);
    private static final Duration PATIENCE = Duration.ofSeconds(3);
    private static final Duration CLOCK_SKEW = Duration.ofSeconds(5);
    private static final int MAX_KEY_SET = 64 << 10; // bytes

    private final KeyRetriever retriever = new KeyRetriever();
    private final NimbusJwtDecoder decoder;

    AccessTokens(String issuer, String audience) throws Exception {
        URL keySet = URI.create(issuer + "/.well-known/jwks.json").toURL();
        JWKSource<SecurityContext> keys = JWKSourceBuilder.<SecurityContext>create(keySet, retriever)
                .cache(KEEP_KEYS.toMillis(), 2 * PATIENCE.toMillis())
                .refreshAheadCache(false)
                .rateLimited(BETWEEN_FETCHES.toMillis())
                .build();

        DefaultJWTProcessor<SecurityContext> processor = new DefaultJWTProcessor<>();
        processor.setJWSTypeVerifier(new DefaultJOSEObjectTypeVerifier<>(new JOSEObjectType("at+jwt")));
        processor.setJWSKeySelector(new JWSVerificationKeySelector<>(Set.of(JWSAlgorithm.ES256, JWSAlgorithm.RS256), keys));
        processor.setJWTClaimsSetVerifier((claims, context) -> { }); // the validators below do it

        decoder = new NimbusJwtDecoder(processor);
        decoder.setJwtValidator(new DelegatingOAuth2TokenValidator<>(
                new JwtIssuerValidator(issuer),
                new JwtAudienceValidator(audience),
                new JwtTimestampValidator(CLOCK_SKEW),
                new JwtClaimValidator<>(JwtClaimNames.EXP, Objects::nonNull),
                new JwtClaimValidator<>(JwtClaimNames.SUB, Objects::nonNull),
                new JwtClaimValidator<>("client_id", Objects::nonNull),
                AccessTokens::unbound));
    }

    /** A token that is bound to a key (RFC 9449) is of no use without a proof, which nobody checks here. */
    private static OAuth2TokenValidatorResult unbound(Jwt token) {
        return token.hasClaim("cnf")
                ? OAuth2TokenValidatorResult.failure(new OAuth2Error("invalid_token", "the token is bound to a key", null))
                : OAuth2TokenValidatorResult.success();
    }

    /** Throws KeysUnavailable where the token cannot be judged, BadJwtException where it is no good. */
    @Override
    public Jwt decode(String token) throws JwtException {
        try {
            return decoder.decode(token);
        } catch (BadJwtException e) {
            throw e;
        } catch (JwtException e) {
            // While the issuer answers, a key that may not be looked for again is an unknown one.
            boolean unknown = retriever.answered && e.getCause() instanceof RateLimitReachedException;
            if (!unknown && e.getCause() instanceof KeySourceException) throw new KeysUnavailable(e);
            throw new BadJwtException("no key for this token", e);
        }
    }

    /** Remembers whether the issuer answered last time. */
    private static class KeyRetriever extends DefaultResourceRetriever {

        volatile boolean answered;

        KeyRetriever() {
            super((int) PATIENCE.toMillis(), (int) PATIENCE.toMillis(), MAX_KEY_SET);
        }

        @Override
        public Resource retrieveResource(URL url) throws IOException {
            answered = false;
            Resource resource = super.retrieveResource(url);
            answered = true;
            return resource;
        }
    }
}
