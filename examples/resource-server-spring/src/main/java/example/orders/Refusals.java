package example.orders;

import java.util.stream.Collectors;

import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.springframework.http.HttpHeaders;
import org.springframework.security.access.AccessDeniedException;
import org.springframework.security.authorization.AuthorityAuthorizationDecision;
import org.springframework.security.authorization.AuthorizationDeniedException;
import org.springframework.security.core.AuthenticationException;
import org.springframework.security.core.GrantedAuthority;
import org.springframework.security.oauth2.core.OAuth2AuthenticationException;
import org.springframework.security.web.AuthenticationEntryPoint;
import org.springframework.security.web.access.AccessDeniedHandler;

/**
 * Answers what is refused with the challenges of RFC 6750 §3. Spring's own handlers do not name the scope that is missing,
 * and tell the caller what is wrong with a token.
 */
class Refusals implements AuthenticationEntryPoint, AccessDeniedHandler {

    private static final String CHALLENGE = "Bearer realm=\"orders\"";
    private static final String SCOPE = "SCOPE_";
    private static final Logger log = LoggerFactory.getLogger(Refusals.class);

    /** Nobody is authenticated: there was no token, or it is no good, or that cannot be told. */
    @Override
    public void commence(HttpServletRequest request, HttpServletResponse response, AuthenticationException reason) {
        if (reason instanceof KeysUnavailable) {
            log.warn("tokens cannot be verified", reason);
            response.setHeader(HttpHeaders.RETRY_AFTER, "5");
            response.setStatus(HttpServletResponse.SC_SERVICE_UNAVAILABLE);
        } else if (reason instanceof OAuth2AuthenticationException) {
            log.info("refused: {}", reason.getMessage());
            refuse(response, HttpServletResponse.SC_UNAUTHORIZED, ", error=\"invalid_token\"");
        } else {
            refuse(response, HttpServletResponse.SC_UNAUTHORIZED, "");
        }
    }

    /** The token is good, but not for this. */
    @Override
    public void handle(HttpServletRequest request, HttpServletResponse response, AccessDeniedException reason) {
        String needed = "";
        if (reason instanceof AuthorizationDeniedException denied
                && denied.getAuthorizationResult() instanceof AuthorityAuthorizationDecision decision) {
            String scopes = decision.getAuthorities().stream().map(GrantedAuthority::getAuthority)
                    .filter(authority -> authority != null && authority.startsWith(SCOPE))
                    .map(authority -> authority.substring(SCOPE.length()))
                    .collect(Collectors.joining(" "));
            needed = ", scope=\"" + scopes + "\"";
        }
        refuse(response, HttpServletResponse.SC_FORBIDDEN, ", error=\"insufficient_scope\"" + needed);
    }

    private static void refuse(HttpServletResponse response, int status, String error) {
        response.setHeader(HttpHeaders.WWW_AUTHENTICATE, CHALLENGE + error);
        response.setStatus(status);
    }
}
