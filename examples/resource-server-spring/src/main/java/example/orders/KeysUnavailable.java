package example.orders;

import org.springframework.security.core.AuthenticationException;

/** The issuer's keys cannot be had at the moment, which is not the token's fault. */
class KeysUnavailable extends AuthenticationException {

    KeysUnavailable(Throwable cause) {
        super("the issuer's keys are unavailable", cause);
    }
}
