package example.orders;

import org.springframework.beans.factory.annotation.Value;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.http.HttpMethod;
import org.springframework.security.config.Customizer;
import org.springframework.security.config.annotation.web.builders.HttpSecurity;
import org.springframework.security.config.annotation.web.configurers.CsrfConfigurer;
import org.springframework.security.config.http.SessionCreationPolicy;
import org.springframework.security.oauth2.jwt.JwtDecoder;
import org.springframework.security.web.SecurityFilterChain;

/** Which access token opens what. */
@Configuration
class Security {

    @Bean
    SecurityFilterChain api(HttpSecurity http, @Value("${orders.issuer}") String issuer) throws Exception {
        Refusals refusals = new Refusals();
        return http
                .authorizeHttpRequests(requests -> requests
                        .requestMatchers(HttpMethod.GET, "/orders").hasAuthority("SCOPE_orders.read")
                        .anyRequest().authenticated())
                .oauth2ResourceServer(server -> server
                        .jwt(Customizer.withDefaults())
                        .protectedResourceMetadata(resource -> resource // RFC 9728
                                .protectedResourceMetadataCustomizer(metadata -> metadata
                                        .authorizationServer(issuer)
                                        .scope("orders.read")
                                        .tlsClientCertificateBoundAccessTokens(false)))
                        .authenticationEntryPoint(refusals)
                        .accessDeniedHandler(refusals))
                .exceptionHandling(handling -> handling
                        .authenticationEntryPoint(refusals)
                        .accessDeniedHandler(refusals))
                .sessionManagement(session -> session.sessionCreationPolicy(SessionCreationPolicy.STATELESS))
                .csrf(CsrfConfigurer::disable) // no cookie is ever accepted
                .build();
    }

    @Bean
    JwtDecoder jwtDecoder(@Value("${orders.issuer}") String issuer, @Value("${orders.audience}") String audience) throws Exception {
        return new AccessTokens(issuer, audience);
    }
}
