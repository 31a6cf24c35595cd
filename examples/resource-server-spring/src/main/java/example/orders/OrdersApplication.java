package example.orders;

import java.util.List;
import java.util.Map;

import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.security.core.annotation.AuthenticationPrincipal;
import org.springframework.security.oauth2.jwt.Jwt;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RestController;

/** The orders API. Who may call what is in {@link Security}. */
@SpringBootApplication
@RestController
class OrdersApplication {

    public static void main(String[] args) {
        SpringApplication.run(OrdersApplication.class, args);
    }

    @GetMapping("/orders")
    Map<String, Object> orders(@AuthenticationPrincipal Jwt token) {
        return Map.of("sub", token.getSubject(), "orders", List.of(Map.of("id", "1001", "item", "tea")));
    }

    @GetMapping("/me")
    Map<String, Object> me(@AuthenticationPrincipal Jwt token) {
        return Map.of("sub", token.getSubject(), "client_id", token.getClaimAsString("client_id"));
    }
}
